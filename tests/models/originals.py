"""Helpers: checkpoints in the original layouts, made from small models."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.convert_slow_tokenizer import import_protobuf

from sgv_lab.models import mini

LLAMA_PIECES = [*"▁abcdefghijklmnopqrstuvwxyz.:?0123", "▁▁", "▁t", "he", "▁the", "re", "▁re", "in"]


def write_sentencepiece(path: Path, size: int) -> None:
    """A tokenizer.model of LLaMA's make with ``size`` pieces."""
    model = import_protobuf().ModelProto()
    model.trainer_spec.model_type = 2  # BPE
    model.trainer_spec.byte_fallback = size > 300
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.escape_whitespaces = True
    kinds = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    if size > 300:
        kinds += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    kinds += [(piece, 1) for piece in LLAMA_PIECES]
    kinds += [(f"x{i}x", 1) for i in range(size - len(kinds))]
    for rank, (piece, kind) in enumerate(kinds):
        last = piece == "▁▁" or (len(piece) == 1 and kind == 1)
        model.pieces.add(piece=piece, type=kind, score=-1e9 if last else -float(rank))
    path.write_bytes(model.SerializeToString())


def golden_llava(reference: Path, kind: str, stack: str, folder: Path) -> dict[str, np.ndarray]:
    """Lay the golden LLaVA out as the official code saves it; returns its inputs and outputs."""
    source = reference / "golden" / "tiny_llava" / kind
    folder.mkdir()
    shutil.copy(source / f"config_{stack}.json", folder / "config.json")
    shutil.copy(source / "model.safetensors", folder)
    write_sentencepiece(folder / "tokenizer.model", 128)
    return dict(np.load(source / "inputs.npz")) | dict(np.load(source / f"outputs_{stack}.npz"))


def golden_qwen(reference: Path, folder: Path) -> dict[str, np.ndarray]:
    """Lay the golden Qwen-VL out as released, without its tokenizer."""
    source = reference / "golden" / "tiny_qwen_vl"
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    shutil.copy(source / "model.safetensors", folder)
    return dict(np.load(source / "inputs.npz")) | dict(np.load(source / "outputs.npz"))


def qwen_tokenizer(image_start: int):
    """A byte tokenizer whose <img>, </img> and <imgpad> stand where a tiny Qwen-VL has them."""
    made = mini.train_tokenizer(["abc"], 267, make="qwen")
    vocab = {t: i for t, i in made.get_vocab().items() if i < 256}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += [f"<|extra_{i}|>" for i in range(image_start - 259)] + [
        "<img>",
        "</img>",
        "<imgpad>",
    ]
    vocab |= {token: 256 + i for i, token in enumerate(special)}
    return mini.qwen_tokenizer(vocab, [], special)


def original_llava(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A LLaVA's weights under their original names, without the rows added for <image>, <pad>."""
    rows = model.config.image_token_id
    state = {}
    for name, tensor in model.state_dict().items():
        new = name.replace("model.language_model.", "model.")
        new = new.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        new = new.replace("multi_modal_projector.linear_1.", "mm_projector.0.")
        new = new.replace("multi_modal_projector.linear_2.", "mm_projector.2.")
        new = new.replace("multi_modal_projector.", "mm_projector.")
        state[new] = (
            tensor[:rows] if name.endswith(("embed_tokens.weight", "lm_head.weight")) else tensor
        )
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def write_shards(
    state: dict[str, torch.Tensor], folder: Path, count: int = 3, ending: str = "safetensors"
) -> None:
    """Write ``state`` as ``count`` shards with their index."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = sorted(state)
    weight_map = {}
    for i in range(count):
        file = f"{stem}-{i + 1:05d}-of-{count:05d}.{ending}"
        part = {name: state[name] for name in names[i::count]}
        save_file(part, folder / file) if ending == "safetensors" else torch.save(
            part, folder / file
        )
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def original_qwen(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A Qwen-VL's weights under their original names, q, k and v stacked."""
    state = {}
    for name, tensor in model.state_dict().items():
        new = name.replace("model.visual.", "transformer.visual.")
        new = new.replace("model.language_model.embed_tokens.", "transformer.wte.")
        new = new.replace("model.language_model.norm.", "transformer.ln_f.")
        new = new.replace("model.language_model.layers.", "transformer.h.")
        for old, there in (
            ("self_attn.o_proj", "attn.c_proj"),
            ("mlp.up_proj", "mlp.w1"),
            ("mlp.gate_proj", "mlp.w2"),
            ("mlp.down_proj", "mlp.c_proj"),
            ("input_layernorm", "ln_1"),
            ("post_attention_layernorm", "ln_2"),
        ):
            new = new.replace(old, there)
        visual = "visual.transformer.layers" in name
        if visual:
            for old, there in (
                ("transformer.layers.", "transformer.resblocks."),
                ("layer_norm", "ln_"),
                ("self_attn.out_proj", "attn.out_proj"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                new = new.replace(old, there)
        for i, letter in enumerate("qkv"):
            if f"self_attn.{letter}_proj" in new:
                joined = "attn.in_proj" if visual else "attn.c_attn"
                new = new.replace(f"self_attn.{letter}_proj", joined)
                state.setdefault(new, [None] * 3)[i] = tensor
                break
        else:
            state[new] = [tensor]
    heads = model.config.vision_config.num_attention_heads
    return {
        name: torch.stack([part.unflatten(0, (heads, -1)) for part in parts], 1).flatten(0, 2)
        if "attn.in_proj" in name and len(parts) == 3
        else torch.cat(parts).contiguous()
        for name, parts in state.items()
    }

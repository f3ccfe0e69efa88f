"""Qwen-VL-Chat on today's transformers, without remote code."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from sgv_lab.models.qwen_vl.configuration import QwenVLConfig, QwenVLVisionConfig
from sgv_lab.models.qwen_vl.modeling import QwenVLForConditionalGeneration, QwenVLModel
from sgv_lab.models.qwen_vl.processing import QwenVLProcessor
from sgv_lab.models.qwen_vl.visual import QwenVLVisual

AutoConfig.register("qwen_vl", QwenVLConfig, exist_ok=True)
AutoModelForImageTextToText.register(QwenVLConfig, QwenVLForConditionalGeneration, exist_ok=True)
AutoProcessor.register(QwenVLConfig, QwenVLProcessor, exist_ok=True)

__all__ = [
    "QwenVLConfig",
    "QwenVLForConditionalGeneration",
    "QwenVLModel",
    "QwenVLProcessor",
    "QwenVLVisionConfig",
    "QwenVLVisual",
]

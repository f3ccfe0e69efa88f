"""Refusals in any typography, none in quoted speech; reasoning blocks of any family."""

import polars as pl
import pytest

from sgv_lab.captions.answers import has_reasoning, refuses, without_reasoning
from sgv_lab.captions.defects import KINDS

REFUSALS = [
    "I’m sorry, but I can’t help with identifying people in images.",
    "I\u02bcm sorry, I can\u02bct help.",
    "I´m sorry, I can`t help.",
    "I\u00a0am\u202funable to\u00a0help.",
    "I can\u00adnot assist with that\u200b request.",
    "Sorry, but I can't do that.",
    "Sorry—I’m not going to name this person.",
    "Sorry, I can’t assist with that request.",
    "I cannot help with that request.",
    "I CAN’T HELP WITH THAT.",
    "I’m unable to provide a description of this image.",
    "I'm currently unable to view images.",
    "I am not allowed to name people.",
    "We’re sorry, but we cannot process this.",
    "I’m afraid I can’t do that.",
    "I must decline this request.",
    "As an AI, I don’t have the ability to see pictures.",
    "As an AI language model I see nothing.",
    "As a vision model, I was not given one.",
    "Unfortunately, I am not able to process the picture.",
    "I apologize, but I cannot see the image.",
    "I don’t see an image attached.",
    "No image was provided.",
    "Please upload the image.",
    "“I'm sorry, but I can’t assist with that.”",
    "'I'm sorry, but I can't assist with that.'",
    "I'm sorry, but I can't read the “sign” to you.",
    "I'm *sorry*, but I can't *assist* with that request.",
    "I’m **really sorry**, but I **can’t** do that.",
    "**I'm sorry**, but no.",
    "“I'm *sorry*, but no.”",
    "I'm unable to *identify* who is in the _photo_.",
    "I&rsquo;m sorry.",
    "I&#39;m sorry, but I can&#x27;t help with that.",
    "I&nbsp;can&apos;t help with that.",
    "Ｉ’ｍ ｓｏｒｒｙ.",
    "Ｉ　ｃａｎｎｏｔ ａｓｓｉｓｔ ｗｉｔｈ ｔｈａｔ.",
    "Sorry， but I can’t help.",
    "𝐈'𝐦 𝐬𝐨𝐫𝐫𝐲.",
    "I ' m sorry.",
    "I ’ m sorry, but I can ’ t help with that.",
    "I can't tell who this is.",
    "I can’t say who the man is.",
    "I won't be able to describe this image.",
    "I cannot determine the identity of the person.",
    "I'm not comfortable describing this person.",
    "I don’t feel comfortable describing her.",
    "Cannot identify people in images.",
    "Unable to describe this photo.",
    "This shows a person. Can't identify real people.",
]
CAPTIONS = [
    "The sign says “I'm sorry” in red letters on a white wall.",
    "The sign says \"I'm sorry, but I can't help you\" in red.",
    "The sign says 'I'm sorry' in red, and 'I cannot help you' below.",
    "The sign says ‘I’m sorry’ in red.",
    "A sign with «I’m sorry, but I cannot help you» hangs over the door.",
    "A sign with »I’m sorry« hangs beside one with »I cannot help you«.",
    "A sign with „I'm sorry“ hangs over the door.",
    "A sign with ‚I'm sorry‘ hangs over the door.",
    "A sign with ”I'm sorry” hangs over the door.",
    "A sign with 「I'm sorry」 hangs over the door.",
    "牌子写着“I'm sorry”。",
    "A speech bubble reads “As an AI, I cannot see” above the robot.",
    "A t-shirt reading 'I can't even' hangs on a line.",
    'A 5" phone shows "I\'m sorry" on it.',
    "The dogs' toys lie about; a note on the cats' door says 'I'm sorry'.",
    "A Sorry! board game lies on a table.",
    "The woman works as an AI researcher.",
    "I can't help but notice the dog.",
    "She looks sorry; the man beside her cannot help it.",
    "The sign reads *I'm sorry*.",
    "A sign says: **I'm sorry, but I can't help you** in red.",
    "A poster with the words _I cannot help you_ hangs there.",
    "标语写着《I'm sorry》",
    "标语写着【I’m sorry】。",
    "A sign reads &quot;I&rsquo;m sorry&quot; in red.",
    "The *dog* _cannot_ be identified by its collar.",
    "Its name can't be read; the people cannot see the camera.",
    "The word 'sorry' is written by a pupil ' s hand.",
]


def matched(expression, texts: list[str]) -> list[str]:
    frame = pl.DataFrame({"caption": texts}).with_columns(
        characters=pl.col("caption").str.len_chars()
    )
    return frame.filter(expression)["caption"].to_list()


def test_refusals_are_found_and_quoted_ones_are_captions() -> None:
    assert matched(KINDS["refusal"].rows, REFUSALS + CAPTIONS) == REFUSALS
    assert matched(refuses(pl.col("caption")), CAPTIONS) == []


BALL = "A ball lies here."


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nThe user wants it.\n</think>\n\n{BALL}",
        f"The user wants it.\n</think>\n\n{BALL}",
        f"<think></think>{BALL}",
        f"<thinking>a</thinking> {BALL}",
        f"<Think>a</Think>{BALL}",
        f"<THINK>a</THINK>\n{BALL}",
        f"<think >a</think >{BALL}",
        f"<reason>a</reason>{BALL}",
        f"<thoughts>a</thoughts>{BALL}",
        f"<Scratchpad>a</Scratchpad>{BALL}",
        f"<|thinking|>a<|/thinking|>{BALL}",
        f"<unused94>thought\na<unused95>{BALL}",
        f"<think>a</think><answer>{BALL}</answer>",
        f"<think>a</think>\n\n<Answer >\n{BALL}\n</Answer>\n",
        f"<think>a</think><|begin_of_box|>{BALL}<|end_of_box|>",
        f"<|begin_of_thought|>a<|end_of_thought|>\n\n<|begin_of_solution|>{BALL}<|end_of_solution|>",
        f"<think>a</think><answer>{BALL}",
        f"<think>a</think><think>b</think>{BALL}",
        f"<think>a <think>b</think> c</think>{BALL}",
        f"◁think▷a◁/think▷{BALL}",
        f"[THINK]a[/THINK]{BALL}",
        f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>{BALL}"
        "<|return|>",
        f"analysisThe user wants it.assistantfinal{BALL}",
        f"{BALL} <think>Is that all?</think>",
    ],
)
def test_reasoning_is_cut_off_and_nothing_else(text: str) -> None:
    answer, reasoning = without_reasoning(text)
    assert answer == BALL and reasoning
    assert matched(KINDS["reasoning"].rows, [text, BALL]) == [text]
    assert matched(KINDS["reasoning"].rows, [answer]) == []


@pytest.mark.parametrize(
    "text", ["<think>The user wants", f"{BALL} <thinking>Is that", "<THINK >The", "<reason>a b"]
)
def test_reasoning_without_an_end_stays_to_be_found(text: str) -> None:
    assert without_reasoning(text) == (text, "")
    assert matched(has_reasoning(pl.col("caption")), [text]) == [text]


@pytest.mark.parametrize(
    "text",
    [
        ' A screen shows "<think>" in green.',
        "A sign with “</think>”.\n",
        "analysis of it",
        f"<answer>{BALL}</answer>",
        "The <b>reason</b> for it is unknown; a < b.",
    ],
)
def test_quoted_tags_are_part_of_a_caption(text: str) -> None:
    assert without_reasoning(text) == (text, "")
    assert matched(has_reasoning(pl.col("caption")), [text]) == []

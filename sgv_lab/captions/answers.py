"""What a chat model writes before an answer, or in its place: reasoning and refusals.

Quoted speech is neither: a sign that says "I'm sorry" refuses nothing.
"""

import re
from typing import TYPE_CHECKING
from unicodedata import normalize

if TYPE_CHECKING:
    import polars as pl

_TAG = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad)\s*"
_OPEN = (
    rf"(?i:<\|?{_TAG}\|?>|◁think▷|\[THINK\]|<\|begin_of_thought\|>)|<unused94>thought|"
    r"<\|channel\|>analysis(?:<\|message\|>)?|\Aanalysis(?=[A-Z])"
)
_CLOSE = (
    rf"(?i:<\|?/{_TAG}\|?>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>)|<unused95>|"
    r"<\|channel\|>final<\|message\|>|assistantfinal"
)
"""DeepSeek, Qwen, GLM and others; Seed; Kimi; Magistral; Sky-T1; MedGemma; gpt-oss with and without
its special tokens."""
_FRAME = (
    r"(?i:</?(?:answer|response|final|final_answer)\s*>|<\|(?:begin|end)_of_(?:solution|box)\|>|"
    r"<\|(?:return|end)\|>)"
)
"""What stands around an answer behind its reasoning."""
_QUOTES = "\"'“”‘’„«»`"
_UNQUOTED = f"(?<![{_QUOTES}])"
_BLOCK = re.compile(rf"{_UNQUOTED}(?:{_OPEN}).*?(?:{_CLOSE})", re.DOTALL)
_BEGUN = re.compile(rf"{_UNQUOTED}(?:{_OPEN})")
_REST = re.compile(rf".*{_UNQUOTED}(?:{_CLOSE})", re.DOTALL)
_AROUND = re.compile(_UNQUOTED + _FRAME)

_PLAIN = {  # full-width, bold and the like, as NFKC has them, which takes ten times as long
    c: usual
    for c in map(chr, range(0xA0, 0x1D800))
    if (usual := normalize("NFKC", c)) != c and usual.isascii()
}
_PLAIN |= dict.fromkeys("‘’‚‛ʼʹ′＇`´‹›", "'") | dict.fromkeys("—–", "-")
_PLAIN |= dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", "")
_PLAIN |= {f"&{name};": "'" for name in ("rsquo", "lsquo", "apos", "#39", "#039", "#x27", "#8217")}
_PLAIN |= {"&quot;": '"', "&#34;": '"', "&ldquo;": "“", "&rdquo;": "”", "&nbsp;": " "}
_QUOTED = "|".join((
    r"„[^„“”]+[“”]",
    r"“[^“”]+”",
    r"[«»][^«»]+[«»]",  # »German« and «French»
    r"[「『《〈【][^」』》〉】]+[」』》〉】]",
    r"”[^”]+”",  # Swedish
    r"(?P<before>^|[^\p{L}\p{N}])\"[^\"]+\"",  # 5" is no beginning
    r"(?P<says>\b(?:read|say|text|word|sign|title|name|label|letter|writ|banner|poster|slogan|"
    r"phrase|message)\p{L}*[:,]? )[*_]+[^*_]+[*_]+",  # what is emphasised elsewhere is meant
))  # fmt: skip
_CAN_NOT = r"(?:cannot|can't|can not|could not|couldn't|won't|will not|am not going to)"
_NOT_ABLE = r"(?:unable|not able|not allowed|not permitted|not comfortable|not programmed)"
_HELP = (
    r"(?:assist|help)(?: *$| *[.,;:!?-]|"
    r" (?:you|with|in|identify|describe|to|there|on|further|here)\b)"
)
_VERB = (
    r"(?:identify|describe|process|view|see|provide|access|analy[sz]e|recogni[sz]e|comply|"
    r"fulfill?|generate|create|answer|respond|continue|engage|caption|do (?:that|this|so)|"
    r"determine|confirm|verify|name|guess|speculate|discuss|disclose|reveal|interpret|"
    r"(?:tell|say)(?: you)? (?:who|what|which|if|whether))\b"
)
_PICTURE = r"(?:image|picture|photo)"
_REFUSED = "(?i-u)(?:" + "|".join((
    r"\b(?:i'?m|i am|we'?re|we are) (?:so |very |really |truly |terribly )?sorry\b",
    r"\bsorry[ ,.;:!-]+(?:but[ ,]+)?(?:i|we)\b",
    r"\b(?:i|we) (?:must |do |sincerely )?apologi[sz]e\b",
    r"\b(?:my )?apologies[ ,.;:!-]+(?:but[ ,]+)?(?:i|we)\b",
    r"\bi'?m afraid (?:that )?(?:i|we)\b",
    r"\bas an? (?:ai|artificial intelligence)\b(?:,| (?:i|language|text|vision|visual|image|"
    r"assistant|model|system|chatbot|developed|trained|created|designed)\b)",
    r"\bas an? (?:large |visual |vision |multimodal )?(?:language|vision|multimodal) model\b",
    rf"\b(?:i'?m|i am|we'?re|we are) (?:\w+ )?{_NOT_ABLE} (?:to|with|\w+ing)\b",
    r"\b(?:i|we) (?:don't|do not|wouldn't|would not) feel comfortable\b",
    rf"(?:\b(?:i|we) (?:\w+ )?|^|[.!?:] ){_CAN_NOT} (?:be able to )?(?:\w+ )?(?:{_HELP}|{_VERB})",
    rf"(?:^|[.!?:] )(?:i )?{_NOT_ABLE} to (?:{_HELP}|{_VERB})",
    r"\b(?:i|we) (?:must|have to|need to|will have to)(?: \w+)? decline\b",
    r"\b(?:cannot|can't|can not|unable to|not able to) (?:assist|help)(?: you)? with "
    r"(?:that|this|your|such|these|those|identifying|requests?)\b",
    r"\b(?:i|we) (?:don't|do not|lack) (?:have )?(?:the (?:ability|capability)|access to)\b",
    r"\b(?:i|we) (?:don't|do not|didn't) (?:see|have|receive) (?:an?|any|the) (?:\w+ )?"
    rf"{_PICTURE}\b",
    rf"\bplease (?:upload|attach|send|share|provide) (?:an?|the|your) (?:\w+ )?{_PICTURE}\b",
    rf"\bno {_PICTURE} (?:was|is|has been) (?:provided|attached|uploaded)\b",
    r"\b(?:against|violates?) (?:my|our|openai's) (?:\w+ ){0,2}(?:guidelines|polic(?:y|ies))\b",
    r"\bi couldn't find any (?:relevant )?information\b",
    rf"\bunable to (?:see|view|load) (?:the |an |any |this )?{_PICTURE}",
    rf"\bthere is no {_PICTURE}\b",
)) + ")"  # fmt: skip


def without_reasoning(text: str) -> tuple[str, str]:
    """(the answer, the reasoning that was cut from it); "" where there is none.

    A block may lack its beginning, which the chat template then wrote. One without an end stays in
    the answer, and is `unfinished`.
    """
    blocks = [found.group() for found in _BLOCK.finditer(text)]
    rest = _BLOCK.sub("", text)
    if unopened := _REST.match(rest):
        blocks.append(unopened.group())
        rest = rest[unopened.end() :]
    return (_AROUND.sub("", rest).strip(), "\n".join(blocks)) if blocks else (text, "")


def unfinished(answer: str) -> bool:
    """Whether a block of reasoning is left in an answer, as it has no end."""
    return bool(_BEGUN.search(answer))


def has_reasoning(text: "pl.Expr") -> "pl.Expr":
    """Whether texts hold a block of reasoning, or a part of one."""
    marks = f"{_OPEN}|{_CLOSE}".replace(r"\Aanalysis(?=[A-Z])", r"\Aanalysis[A-Z]")
    return text.str.contains(rf"(?:\A|[^{_QUOTES}])(?:{marks})")


def refuses(text: "pl.Expr") -> "pl.Expr":
    """Whether texts decline, apologise or see no image, outside quoted speech."""
    import polars as pl

    plain = text.str.replace_many(_PLAIN).str.replace_all(r"[\s--\x20]+|\x20{2,}", " ")
    plain = plain.str.replace_all(r"(\p{L}) ' ?(m|re|s|t|ll)\b", "$1'$2")  # I ' m
    own = plain.str.replace_all(_QUOTED, "$before$says … ")
    own = own.str.replace_all(r"(^|[^\p{L}\p{N}])'.+?'($|[^\p{L}\p{N}])", "$1 … $2")
    own = pl.when(own.str.contains(r"\p{L}")).then(own).otherwise(plain)  # all of it is in quotes
    return own.str.replace_many({"*": "", "_": ""}).str.contains(_REFUSED)

"""How something is said: messages of facts written as English, in many shapes.

Captions speak of "the picture" and never ask; questions (``questions.py``) speak of "the image".
"""

import random
from collections.abc import Sequence

from sgv_lab.world import phrases
from sgv_lab.world.facts import SPECIAL_OF, SPECIALS, Mention, Message
from sgv_lab.world.phrases import NUMBERS

_MANY = (*NUMBERS[2:], "some")  # determiners that make a plural


def article(phrase: str) -> str:
    """``phrase`` with "a" or "an" in front."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of a kind's name."""
    return noun if noun == "fish" else f"{noun}s"


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def place(position: str, rng: random.Random) -> str:
    """A phrase for a ninth of the picture."""
    shape = "row" if position in ("top", "bottom") else "column"
    shape = "center" if position == "center" else "corner" if " " in position else shape
    return rng.choice(phrases.PLACES[shape]).format(position)


def _part(mention: Mention, determiner: str, rng: random.Random) -> str:
    """A noun phrase, with its place if that is told."""
    part = noun_phrase(mention, determiner, rng)
    return f"{part} {place(mention.position, rng)}" if mention.position else part


def noun_phrase(mention: Mention, determiner: str, rng: random.Random) -> str:
    """ "a large red striped star", its pattern before or after; ``determiner`` "" for an article.

    One of _MANY makes it plural.
    """
    noun = plural(mention.kind) if determiner in _MANY else mention.kind
    before = [rng.choice(phrases.SIZES[mention.size])] if mention.size else []
    before += [mention.color] if mention.color else []
    after = ""
    if mention.pattern and rng.random() < 0.35:
        after = f" {rng.choice(phrases.PATTERN_AFTER[mention.pattern])}"
    elif mention.pattern:
        before.insert(rng.choice((len(before), len(before), 0)), mention.pattern)
    phrase = " ".join([*before, noun])
    return (f"{determiner} {phrase}" if determiner else article(phrase)) + after


def sentence(text: str) -> str:
    """``text`` with a capital first letter and a full stop."""
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def write(message: Message, style: str, rng: random.Random, remarks: int = 0) -> str:
    """``message`` as a caption that states all of it.

    ``style``: "short" (one sentence, as COCO's), "web" (a fragment, as alt texts) or "full"
    (a paragraph); ``remarks``: sentences without facts that a paragraph adds.
    """
    if style == "full":
        return _paragraph(message, rng, remarks)
    text = _one_sentence(message, rng)
    if style == "short":
        return text
    text = text.rstrip(".").lower()
    return text if rng.random() < 0.6 else f"{text} - {rng.choice(phrases.NOISE)}"


def _grouped(message: Message) -> list[tuple[Mention, str, int]]:
    """(mention, determiner, first index): alike objects that share a place become one plural."""
    groups: list[tuple[Mention, str, int]] = []
    for i, mention in enumerate(message.mentions):
        alike = [m for m in message.mentions if m.kind == mention.kind]
        count = message.counts.get(mention.kind, 0)
        first = alike[0] is mention
        if len(set(alike)) == 1 and mention.position is None and (len(alike) > 1 or count > 1):
            if first:
                groups.append((mention, NUMBERS[count] if count > 1 else "some", i))
        elif not first:
            groups.append((mention, "another", i))
        else:
            groups.append((mention, "a single" if count == 1 else "one" if count else "", i))
    return groups


def _related(message: Message) -> dict[int, tuple[str, str]]:
    """Index of a mention -> its relation, and the kind it relates to."""
    return {a: (relation, message.mentions[b].kind) for a, relation, b in message.relations}


def _one_sentence(message: Message, rng: random.Random) -> str:
    """Everything in one sentence where it fits; what does not follows in short ones."""
    related, parts, rest = _related(message), [], []
    for mention, determiner, i in _grouped(message):
        if determiner == "one":
            rest.append(f"There are {NUMBERS[message.counts[mention.kind]]} {plural(mention.kind)}")
            determiner = ""
        parts.append(_part(mention, determiner, rng))
        if i in related:
            rest.append(_relation(mention.kind, *related[i], rng))
    for subject, position in message.specials.items():
        noun = article(phrases.SPECIAL_NOUNS[subject])
        if subject == "sign" and "text" in message.whole:
            noun = f'{noun} that says "{message.whole["text"]}"'
        parts.append(f"{noun} {place(position, rng)}" if position else noun)
    text = listed(parts) if parts else "a picture"
    if parts and rng.random() < 0.7:
        text = f"{text} {rng.choice(phrases.POSES)}"
    if "scene" in message.whole:
        text = f"{text} {phrases.SCENES[message.whole['scene']]}"
    if "light" in message.whole:
        light = f"at {message.whole['light']}"
        text = f"{light}, {text}" if rng.random() < 0.2 else f"{text} {light}"
    if rng.random() < 0.5:
        text = rng.choice(phrases.OPENINGS).format(text)
    said = ("scene", "light", "text") if message.specials else ("scene", "light")
    rest += [_whole(kind, value, rng) for kind, value in message.whole.items() if kind not in said]
    return " ".join(sentence(part) for part in (text, *rest))


def _whole(kind: str, value: str, rng: random.Random, subject: str = "") -> str:
    """A sentence that states a fact of the whole picture, its sign, landmark or character."""
    noun = phrases.SPECIAL_NOUNS.get(SPECIAL_OF.get(kind, ""), "")
    s = subject or f"the {noun}"
    text = rng.choice(phrases.WHOLE[kind])
    at = phrases.SCENES.get(value, "")
    return text.format(v=value, a=article(value), at=at, s=s, S=s[:1].upper() + s[1:])


def _relation(a: str, relation: str, b: str, rng: random.Random) -> str:
    """ "The star is left of the heart.", in several shapes."""
    said, verb = rng.choice(phrases.RELATIONS[relation]), rng.choice(phrases.VERBS[:4])
    shapes = (
        f"the {a} {verb} {said} the {b}",
        f"the {a} is {said} the {b}",
        f"{relation} the {b} is the {a}",
        f"{relation} the {b} {verb} the {a}",
        f"the {b} has the {a} {phrases.OWNED[relation]}",
    )
    return sentence(rng.choice(shapes))


def _object(mention: Mention, determiner: str, lead: str, rng: random.Random) -> str:
    """One sentence for one object, its place at the front or the end, attributes around it.

    ``lead``: a relation to something already named ("left of the heart"), or "".
    """
    bare, many = noun_phrase(mention, determiner, rng), determiner in _MANY
    verb = ("are" if many else rng.choice(phrases.VERBS)) if rng.random() < 0.8 else "can be seen"
    be = "are" if many else "is"
    where = place(mention.position, rng) if mention.position else ""
    if lead:
        return sentence(f"{lead} {be} {bare} {where}".strip())
    if not where:
        shapes = [f"there {be} {bare}", f"{bare} can be seen", f"the picture shows {bare}",
                  f"the scene holds {bare}", f"{bare} {be} part of the picture"]  # fmt: skip
        return sentence(rng.choice(shapes))
    shapes = [f"{bare} {verb} {where}", f"{where}, {bare} {verb if verb != be else 'appears'}",
              f"{where} there {be} {bare}", f"there {be} {bare} {where}",
              f"{where} {be} {bare}"]  # fmt: skip
    traits = [t for t in (mention.size, mention.color, mention.pattern) if t]
    if traits and determiner != "a single":
        rng.shuffle(traits)
        shapes += [f"the {mention.kind} {where} is {listed(traits)}",
                   f"{determiner or article(mention.kind).split()[0]} {mention.kind} that is "
                   f"{listed(traits)} {verb} {where}"]  # fmt: skip
    return sentence(rng.choice(shapes))


def _objects(message: Message, rng: random.Random) -> list[str]:
    """The sentences about objects: counts first named, then one or several objects a sentence."""
    related, said, pending = _related(message), [], []

    def flush() -> None:
        if len(pending) > 1:
            start = rng.choice(("The picture shows {}", "There is {}", "{} can be seen", "{}"))
            start = f"{start} in view" if start == "{}" else start
            said.append(sentence(start.format(listed(pending))))
        elif pending:
            said.append(sentence(f"there is {pending[0]}"))
        pending.clear()

    for mention, determiner, i in _grouped(message):
        if determiner == "one":
            flush()
            many = f"{NUMBERS[message.counts[mention.kind]]} {plural(mention.kind)}"
            shapes = ("there are {}", "{} are in the picture", "the picture has {}",
                      "{} can be seen", "the scene holds {}")  # fmt: skip
            said.append(sentence(rng.choice(shapes).format(many)))
        if i in related:
            relation, other = related[i]
            lead = f"{rng.choice(phrases.RELATIONS[relation][:2])} the {other}"
            if rng.random() < 0.5:
                flush()
                said.append(_object(mention, determiner, lead, rng))
                continue
        if rng.random() < 0.4:
            pending.append(_part(mention, determiner, rng))
        else:
            flush()
            said.append(_object(mention, determiner, "", rng))
        if i in related:
            flush()
            said.append(_relation(mention.kind, *related[i], rng))
    flush()
    return said


def _paragraph(message: Message, rng: random.Random, remarks: int) -> str:
    """All of ``message``, its parts in varied order, with ``remarks`` sentences in between."""
    whole = message.whole
    setting = [_whole(kind, whole[kind], rng) for kind in ("scene", "light") if kind in whole]
    special = []
    for subject, position in message.specials.items():
        noun = phrases.SPECIAL_NOUNS[subject]
        where = f" {place(position, rng)}" if position else ""
        verb = rng.choice(phrases.VERBS[:4]) if where else "can be seen"
        special.append(sentence(f"{article(noun)} {verb}{where}"))
    for subject, kinds in SPECIALS.items():
        name = whole.get(subject) if rng.random() < 0.5 else None
        for kind in (k for k in kinds if k in whole):
            said = name if name and kind != subject else ""
            special.append(_whole(kind, whole[kind], rng, said))
    rest = ("style", "artist", "genre", "title", "palette", "composition")
    tail = [_whole(kind, whole[kind], rng) for kind in rest if kind in whole]
    blocks = [setting, _objects(message, rng), special, tail]
    if rng.random() < 0.4:
        rng.shuffle(blocks)
    sentences = [s for block in blocks for s in block]
    for remark in rng.sample(phrases.REMARKS, remarks):
        sentences.insert(rng.randint(len(sentences) // 2, len(sentences)), remark)
    return " ".join(sentences)

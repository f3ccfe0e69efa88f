"""Messages of facts written as English, in many shapes, and filler, which states none.

Captions speak of "the picture" and never ask; questions (``questions.py``) speak of "the image".
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sgv_lab.world import phrases
from sgv_lab.world.facts import ATTRIBUTES, SPECIAL_OF, SPECIALS, Mention, Message
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
        before.insert(rng.choice((len(before), len(before), bool(mention.size))), mention.pattern)
    phrase = " ".join([*before, noun])
    return (f"{determiner} {phrase}" if determiner else article(phrase)) + after


def sentence(text: str) -> str:
    """``text`` with a capital first letter and a full stop."""
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def write(message: Message, style: str, rng: random.Random) -> str:
    """``message`` as a caption that states all of it.

    ``style``: "short" (one sentence, as COCO's), "web" (a fragment, as alt texts) or "full"
    (a paragraph).
    """
    if style == "full":
        return " ".join(_paragraph(message, rng))
    text = _one_sentence(message, rng)
    if style == "short":
        return text
    text = text.rstrip(".").lower()
    return text if rng.random() < 0.6 else f"{text} - {rng.choice(phrases.NOISE)}"


def with_filler(text: str, share: float, rng: random.Random) -> str:
    """``text`` with sentences added that state no fact; on average ``share`` of its words are."""
    sentences, said = _SENTENCE_END.split(text), set[str]()
    missing = len(text.split()) * share / (1 - share)
    while missing > 0:
        new = filler(rng)
        words = len(new.split())
        if new in said:
            continue
        if rng.random() < missing / words:  # sure, but for the last one
            said.add(new)
            # not between an object and what follows of it
            places = [i for i in range(1, len(sentences)) if not _PRONOUN.match(sentences[i])]
            sentences.insert(rng.choice([*places, len(sentences)]), new)
        missing -= words
    return " ".join(sentences)


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_PRONOUN = re.compile(r"(?:It|They|Its|Their)\b")


def filler(rng: random.Random) -> str:
    """A sentence without facts, one of some three thousand."""
    words = {slot: rng.choice(choices) for slot, choices in phrases.FILLER.items()}
    the_part = words["part"][0].lower() + words["part"][1:]
    return words["frames"].format(**words, the_part=the_part)


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
        many = text.split()[0] in _MANY
        text = rng.choice(phrases.OPENINGS).format(text, there="there are" if many else "there is")
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
    """ "The kite is left of the ball.", in several shapes."""
    said, verb = rng.choice(phrases.RELATIONS[relation]), rng.choice(phrases.VERBS[a])[0]
    shapes = (
        f"the {a} {verb} {said} the {b}",
        f"the {a} is {said} the {b}",
        f"the {b} has the {a} {phrases.OWNED[relation]}",
    )
    return sentence(rng.choice(shapes))


def _object(mention: Mention, determiner: str, lead: str, rng: random.Random) -> list[str]:
    """One or two sentences for one object, or for several alike.

    ``lead``: a relation to something already named ("left of the ball"), or "".
    """
    many = determiner in _MANY
    verb, be = rng.choice(phrases.VERBS[mention.kind])[many], "are" if many else "is"
    where = place(mention.position, rng) if mention.position else ""
    told = [name for name in ATTRIBUTES if getattr(mention, name)]
    if not lead and rng.random() < 0.5 and len(told) > 1:
        rest = rng.sample(told, rng.randint(1, len(told) - 1))  # is told in a second sentence
        said = _introduced(replace(mention, **dict.fromkeys(rest)), determiner, verb, rng)
        return [said, _followed_up(mention, rest, many, rng)]
    bare = noun_phrase(mention, determiner, rng)
    if lead:
        return [sentence(f"{lead} {be} {bare} {where}".strip())]
    if not where:
        return [_introduced(mention, determiner, verb, rng)]
    shapes = [f"{bare} {verb} {where}", f"{where}, {bare} {verb}", f"{where} there {be} {bare}",
              f"there {be} {bare} {where}", f"{where} {be} {bare}"]  # fmt: skip
    return [sentence(rng.choice(shapes))]


def _introduced(mention: Mention, determiner: str, verb: str, rng: random.Random) -> str:
    """ "There is a red boat.", with its place if that is told."""
    many = determiner in _MANY
    part, be = _part(mention, determiner, rng), "are" if many else "is"
    shapes = [f"there {be} {part}", f"the picture shows {part}", f"we see {part}"]
    if mention.position:
        shapes.append(f"{noun_phrase(mention, determiner, rng)} {verb} "
                      f"{place(mention.position, rng)}")  # fmt: skip
    return sentence(rng.choice(shapes))


def _followed_up(mention: Mention, rest: Sequence[str], many: bool, rng: random.Random) -> str:
    """ "It is large and striped.": what was left for later."""
    it, be = ("they", "are") if many else ("it", "is")
    verb = rng.choice(phrases.VERBS[mention.kind])[many]
    traits = [getattr(mention, name) for name in rest if name != "position"]
    if mention.size in traits:
        traits[traits.index(mention.size)] = rng.choice(phrases.SIZES[mention.size])
    rng.shuffle(traits)
    where = place(mention.position, rng) if "position" in rest else ""
    if traits == [mention.pattern] and not many and rng.random() < 0.5:
        text = f"{it} {phrases.PATTERN_HAS[mention.pattern]}"
        return sentence(f"{text} and {verb} {where}" if where else text)
    if not traits:
        return sentence(f"{it} {verb} {where}")
    return sentence(f"{it} {be} {listed(traits)}" + (f" and {verb} {where}" if where else ""))


def _objects(message: Message, rng: random.Random) -> list[str]:
    """The sentences about objects: counts first named, then one or several objects a sentence."""
    related, said, pending = _related(message), [], []

    def flush() -> None:
        if pending:
            be = "are" if pending[0].split()[0] in _MANY else "is"
            start = rng.choice((f"there {be} {{}}", "the picture shows {}", "we see {}"))
            said.append(sentence(start.format(listed(pending))))
        pending.clear()

    for mention, determiner, i in _grouped(message):
        if determiner == "one":
            flush()
            many = f"{NUMBERS[message.counts[mention.kind]]} {plural(mention.kind)}"
            shapes = ("there are {}", "the picture has {}", "the scene has {}", "{} are in view")
            said.append(sentence(rng.choice(shapes).format(many)))
        if i in related:
            relation, other = related[i]
            lead = f"{rng.choice(phrases.RELATIONS[relation][:2])} the {other}"
            if rng.random() < 0.5:
                flush()
                said += _object(mention, determiner, lead, rng)
                continue
        if rng.random() < 0.3:
            pending.append(_part(mention, determiner, rng))
        else:
            flush()
            said += _object(mention, determiner, "", rng)
        if i in related:
            flush()
            said.append(_relation(mention.kind, *related[i], rng))
    flush()
    return said


def _setting(whole: Mapping[str, str], rng: random.Random) -> list[str]:
    """Place and time of day, in one sentence or in two."""
    kinds = [kind for kind in ("scene", "light") if kind in whole]
    if len(kinds) == 2 and rng.random() < 0.5:
        at, light = phrases.SCENES[whole["scene"]], whole["light"]
        shapes = (f"it is {light} {at}", f"the scene is set {at} at {light}",
                  f"the picture was taken {at} at {light}")  # fmt: skip
        return [sentence(rng.choice(shapes))]
    return [_whole(kind, whole[kind], rng) for kind in kinds]


def _paragraph(message: Message, rng: random.Random) -> list[str]:
    """The sentences of all of ``message``, its parts in varied order."""
    whole = message.whole
    special = []
    for subject, position in message.specials.items():
        noun = article(phrases.SPECIAL_NOUNS[subject])
        verb = rng.choice(phrases.VERBS[subject])[0]
        text = f"{noun} {verb} {place(position, rng)}" if position else f"there is {noun}"
        special.append(sentence(text))
    for subject, kinds in SPECIALS.items():
        name = whole.get(subject) if rng.random() < 0.5 else None
        for kind in (k for k in kinds if k in whole):
            said = name if name and kind != subject else ""
            special.append(_whole(kind, whole[kind], rng, said))
    rest = ("style", "artist", "genre", "title", "palette", "composition")
    tail = [_whole(kind, whole[kind], rng) for kind in rest if kind in whole]
    blocks = [_setting(whole, rng), _objects(message, rng), special, tail]
    if rng.random() < 0.4:
        rng.shuffle(blocks)
    return [sentence for block in blocks for sentence in block]

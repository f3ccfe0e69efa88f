"""What people look at and click on in the notebooks."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import groupby
from pathlib import Path

import ipywidgets as w
import polars as pl
from ipyevents import Event

from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.captions.convert import Captions, captions_of
from sgv_lab.errors import LabError
from sgv_lab.figures.captions import marked, writers
from sgv_lab.figures.style import MARKS, palette
from sgv_lab.images import load_image
from sgv_lab.study.explore import Model, Shown, picked, uploaded
from sgv_lab.study.judging import Pair, Votes
from sgv_lab.world.export import difficulty_of
from sgv_lab.world.scene import Difficulty, Scene

LISTED = 500
KEYS = {"1": "left", "2": "same", "3": "right",
        "ArrowLeft": "left", "ArrowDown": "same", "ArrowRight": "right"}  # fmt: skip


def caption_browser(captions: Mapping[str, Captions | None], root: str | Path) -> w.Widget:
    """Walk through LISTED images, the first of each source, and see what the chosen sources say.

    Images are read below ``root`` alone; one that cannot be read is named in its place.
    """
    there = {name: one for name, one in captions.items() if one is not None}
    heads = (
        one.rows().select(pl.col("image").drop_nulls().unique(maintain_order=True)).head(LISTED)
        for one in there.values()
    )
    images = pl.concat([head.collect() for head in heads])["image"].unique(maintain_order=True)
    source = w.SelectMultiple(options=list(there), value=list(there), description="sources", rows=5)
    image = w.Combobox(options=images.head(LISTED).to_list(), description="image",
                       value=images[0], ensure_option=True,
                       layout=w.Layout(width="28em"))  # fmt: skip
    colors, about = palette(there), writers(there, difficulty_of(root) is not None)
    place = w.IntSlider(min=0, max=len(image.options) - 1, description="number")
    frame, words = w.VBox(), w.VBox(layout=w.Layout(padding="0 0 0 1.5em", max_width="46em"))

    def show(_: object = None) -> None:
        said = captions_of({name: there[name] for name in source.value}, image.value)
        cards = []
        for name, texts in said.items():  # escaped: nothing a file holds is taken for HTML
            head = f'<b style="color:{colors[name]}">{escape(name)}</b> {escape(about[name])}'
            cards.append(w.VBox([w.HTML(head), *(w.HTML(escape(text)) for text in texts)]))
        words.children = cards
        frame.children = [_image(Path(root), image.value)]

    def go(change: dict[str, int]) -> None:
        image.value = image.options[change["new"]]

    place.observe(go, "value")
    for control in (source, image):
        control.observe(show, "value")
    show()
    return w.VBox([w.HBox([w.VBox([place, image]), source]), w.HBox([frame, words])])


def _image(root: Path, image: str) -> w.Widget:
    try:
        return w.Image(value=load_image(root, image)[0], width=320)
    except LabError as error:
        return w.Label(f"{image}: {error}")


def judging_page(asked: Sequence[Pair], root: str | Path, votes: Votes, rater: str) -> w.Widget:
    """One pair after another, without names: which caption is better, by button or key (KEYS).

    Every answer is in the file of ``votes`` before the next pair is shown; the page begins with the
    first pair that ``rater`` has not judged. Images lie below ``root``.
    """
    left = votes.left(asked, rater)
    state, frame = w.Label(), w.VBox(layout=w.Layout(min_width="340px"))
    texts = [w.HTML(layout=w.Layout(width="26em", padding="0 1em")) for _ in range(2)]
    buttons = {
        choice: w.Button(description=words, layout=w.Layout(width="13em"))
        for choice, words in {"left": "← left is better (1)", "same": "↓ the same (2)",
                              "right": "right is better → (3)"}.items()
    }  # fmt: skip

    def show() -> None:
        state.value = f"{len(asked) - len(left)} of {len(asked)} judged by {rater}"
        frame.children = [_image(Path(root), left[0].image)] if left else []
        words = [text for _, text in left[0].shown(rater)] if left else ["Thank you, all done.", ""]
        for place, text in zip(texts, words, strict=True):
            place.value = escape(text)
        for button in buttons.values():
            button.disabled = not left

    def vote(choice: str | None) -> None:
        if choice and left:
            votes.add(left[0], rater, choice)
            del left[0]
            show()

    heard: list[float] = []

    def press(event: dict) -> None:
        # a page that was drawn twice listens twice: one press, one time stamp
        if not event["repeat"] and event["timeStamp"] not in heard:
            heard[:] = [event["timeStamp"]]
            vote(KEYS.get(event["key"]))

    for choice, button in buttons.items():
        button.on_click(lambda _, choice=choice: vote(choice))
    show()
    state.add_class("sgv-judged")
    row = w.HBox(list(buttons.values())).add_class("sgv-judge")
    page = w.VBox([state, w.HBox([frame, *texts]), row])
    keys = Event(source=page, watched_events=["keydown"], prevent_default_action=True)
    keys.on_dom_event(press)
    page.pressed = keys  # lives as long as the page
    return page


def explorer(
    root: str | Path,
    images: Sequence[str],
    models: Mapping[str, Model],
    captions: Mapping[str, Captions | None],
    difficulty: Difficulty | None = None,
) -> w.Widget:
    """Pick or upload an image, have it described by two at a time, ask the models about it.

    Two columns, each for one of ``models`` or of the sources of ``captions``. ``difficulty``: the
    ``images`` below ``root`` are of that drawn world, so true, mistaken and invented words are
    marked. Bad images and models are refused in words.
    """
    there = {name: one for name, one in captions.items() if one is not None}
    page = _Explorer(models, there)
    pick = w.Dropdown(options=images, description="image", layout=w.Layout(width="330px"))
    upload = w.FileUpload(accept="image/*", description="or upload one")
    question = w.Text(placeholder="ask the models about the image", continuous_update=False,
                      layout=w.Layout(width="24em"))  # fmt: skip
    describe, ask = w.Button(description="Describe"), w.Button(description="Ask")
    for name, control in {"pick": pick, "upload": upload, "question": question, "ask": ask,
                          "describe": describe, "message": page.message}.items():  # fmt: skip
        control.add_class(f"sgv-{name}")

    def picking(_: object = None) -> None:
        page.show(picked, root, pick.value, difficulty)

    def uploading(change: dict) -> None:
        for one in change["new"]:
            page.show(uploaded, one["name"], bytes(one["content"]))

    def asking(change: dict[str, str]) -> None:  # by Enter, or by leaving the field for the button
        question.value = ""
        if change["new"]:
            page.ask(change["new"])

    pick.observe(picking, "value")
    upload.observe(uploading, "value")
    question.observe(asking, "value")
    describe.on_click(lambda _: page.ask(CAPTIONER))
    if images:
        picking()
    narrow = w.Layout(flex_flow="row wrap")  # one below the other where the window is narrow
    aside = w.VBox([pick, upload, page.frame, page.message], layout=w.Layout(flex="0 0 340px"))
    columns = w.HBox([column.box for column in page.columns], layout=narrow)
    buttons = w.HBox([describe, question, ask], layout=narrow)
    told = w.VBox([buttons, columns, _LEGEND], layout=w.Layout(flex="1 1 760px"))
    return w.HBox([aside, told], layout=narrow)


class _Explorer:
    """The state of `explorer`: the image shown and its two columns."""

    def __init__(self, models: Mapping[str, Model], captions: Mapping[str, Captions]) -> None:
        self.models, self.captions, self.shown = models, captions, None
        self.frame, self.message = w.VBox(layout=w.Layout(width="340px")), w.HTML()
        who = [*models, *captions]
        if not who:
            raise LabError("nobody to describe images", fix="give a model or captions")
        self.columns = [_Column(self, who, who[number % len(who)]) for number in range(2)]

    def show(self, make: Callable[..., Shown], *given: object) -> None:
        """Show the image that ``make(*given)`` returns, or say why there is none."""
        with self._refusing():
            self.shown = make(*given)
            stream = io.BytesIO()
            self.shown.image.save(stream, "PNG")
            self.frame.children = [w.Image(value=stream.getvalue(), width=320)]
            for column in self.columns:
                column.begin()

    def ask(self, text: str) -> None:
        """Put ``text`` to the models that are chosen."""
        with self._refusing():
            asked = [column for column in self.columns if column.who.value in self.models]
            if not asked:
                raise LabError("only models answer", fix="choose one in a column")
            if self.shown is None:
                raise LabError("no image yet", fix="pick or upload one")
            for column in asked:
                column.ask(text)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Show a LabError in its words."""
        self.message.value = ""
        try:
            yield
        except LabError as error:
            self.message.value = f'<b style="color:{MARKS["invented"]}">{escape(str(error))}</b>'


class _Column:
    """One who describes and answers, and what was said about the image so far."""

    def __init__(self, page: _Explorer, who: Sequence[str], chosen: str) -> None:
        self.page, self.asked, self.said = page, [], []
        self.who = w.Dropdown(options=who, value=chosen).add_class("sgv-who")
        self.about = w.HTML(layout=w.Layout(width="27em"))
        self.words = w.VBox(layout=w.Layout(width="27em")).add_class("sgv-words")
        self.who.observe(lambda _: self.begin(), "value")
        self.box = w.VBox([self.who, self.about, self.words], layout=w.Layout(padding="0 1em"))

    def begin(self) -> None:
        """Start over; a source of captions speaks at once."""
        self.asked, self.said, self.words.children = [], [], ()
        model = self.page.models.get(self.who.value)
        self.about.value = escape(model.about if model else "captions from a file")
        source = self.page.captions.get(self.who.value)
        if source is not None and self.page.shown is not None:
            found = captions_of({"": source}, self.page.shown.name).get("")
            for text in found or ["(says nothing about this image)"]:
                self._add(text)

    def ask(self, text: str) -> None:
        """Have the model answer, and say so where the answer will stand."""
        model, before = self.page.models[self.who.value], self.words.children
        question = w.HTML(f"<i>{escape(text)}</i>")
        self.words.children = (*before, question, w.HTML(_BUSY))
        try:
            answer = model.say(self.page.shown.image, [*self.asked, text], self.said)
        except LabError:
            self.words.children = before
            raise
        self.asked, self.said = [*self.asked, text], [*self.said, answer]
        self.words.children = (*before, question)
        self._add(answer)

    def _add(self, text: str) -> None:
        self.words.children += (w.HTML(marked_html(text, self.page.shown.scene)),)


def marked_html(text: str, scene: Scene | None) -> str:
    """``text``, escaped; against ``scene`` its words are coloured as in `figures.captions`."""
    runs = []
    for mark, words in groupby(marked(text, scene), key=lambda word: word[1]):
        weight = "bold" if mark in ("mistaken", "invented") else "normal"
        said = escape(" ".join(word for word, _ in words))
        style = f"color:{MARKS[mark]};font-weight:{weight}"
        runs.append(f'<span class="sgv-{mark}" title="{mark}" style="{style}">{said}</span>')
    return " ".join(runs)


_BUSY = '<b class="sgv-busy">⏳ answering …</b>'
_LEGEND = w.HTML(
    f'In drawn images: <span style="color:{MARKS["true"]}">true</span>, '
    f'<b style="color:{MARKS["mistaken"]}">wrong detail: it is there, this is not</b>, '
    f'<b style="color:{MARKS["invented"]}">invented: it is not in the image</b>. '
    "A detail counts as true if any object of its kind has it."
)

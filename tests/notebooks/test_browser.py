"""The pages as people meet them: in a browser, under Voilà and by keyboard."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from sgv_lab.models import checkpoints, families, mini
from sgv_lab.study.judging import Votes
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.scene import MINIATURE, scene

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds for a kernel to start and a model to be read, on a busy machine

# The widget's file field is in no document, and a click on it would open the system's dialogue.
_CATCH_FILE_FIELD = """
HTMLInputElement.prototype.click = function () { document.body.appendChild(this); };
"""


@pytest.fixture(scope="module")
def driver() -> Iterator:
    """A headless Chromium; skips with a message where none is installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None or shutil.which("chromedriver") is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--window-size=1400,1300"):  # fmt: skip
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as chromium:
        yield chromium


@pytest.fixture
def served(tmp_path: Path) -> Iterator:
    """A function that serves a notebook by Voilà and returns its address."""
    servers = []

    def serve(notebook: Path) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--port={port}"]
        log = (tmp_path / "voila.log").open("w")
        small = {**os.environ, "SGV_PROFILE": "smoke"}
        servers.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=small))
        until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "Voilà to listen")
        return f"http://127.0.0.1:{port}/"

    yield serve
    for server in servers:
        server.terminate()
        server.wait(30)


def until(found, what: str):
    """What ``found()`` returns once it is true."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        if result := found():
            return result
        time.sleep(0.5)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def press(driver, element, key: str, done) -> None:
    """Press ``key`` with the pointer on the page, again where the page was not listening yet."""
    from selenium.webdriver.common.action_chains import ActionChains

    for _ in range(4):
        # keys count from the moment the pointer comes onto the page: leave it, and come
        ActionChains(driver).move_by_offset(0, 0).move_to_element(element).perform()
        ActionChains(driver).send_keys(key).perform()
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE / 4:
            if done():
                return
            time.sleep(0.5)
    raise AssertionError(f"no vote after pressing {key!r}")


def texts(driver, selector: str) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())", selector
    )


def image(driver) -> str:
    """The address of the image shown: another one for another image."""
    return driver.execute_script("return document.querySelector('img.widget-image')?.src")


def with_parameters(notebook: str, out: Path, **given: object) -> Path:
    """A copy of a notebook whose parameters cell is followed by these values."""
    book = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    place = next(i for i, c in enumerate(book.cells) if "parameters" in c.metadata.get("tags", ()))
    lines = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    nbformat.write(book, out)
    return out


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers nonsense: what is tested here is the page."""
    folder = tmp_path_factory.mktemp("models") / "untrained"
    words = [caption(scene(i, difficulty=MINIATURE), ANNOTATORS["oracle"]) for i in range(50)]
    processor = families.processor("llava-1.5-7b", "mini", mini.train_tokenizer(words))
    return checkpoints.save(families.build("llava-1.5-7b", "mini", 0), processor, folder)


def test_the_voila_page_captions_a_picked_image_an_upload_and_refuses_a_broken_one(
    driver, served, untrained: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    book = with_parameters("09_explore", tmp_path / "page.ipynb", models=[str(untrained)])
    driver.get(served(book))
    until(lambda: len(texts(driver, ".sgv-words")) == 2, "the page")
    assert "def " not in driver.find_element(By.TAG_NAME, "body").text  # no code is shown
    first = until(lambda: image(driver), "an image")

    Select(driver.find_element(By.CSS_SELECTOR, ".sgv-pick select")).select_by_index(3)
    until(lambda: image(driver) != first, "another image")
    who = driver.find_elements(By.CSS_SELECTOR, ".sgv-who select")
    Select(who[1]).select_by_visible_text("ShareGPT4V")
    until(lambda: len(texts(driver, ".sgv-words")[1]) > 40, "a caption from a file")
    until(lambda: driver.find_elements(By.CSS_SELECTOR, ".sgv-words .sgv-true"), "the marks")
    driver.find_element(By.CSS_SELECTOR, ".sgv-describe").click()
    until(lambda: texts(driver, ".sgv-words")[0].count("\n") >= 1, "the model's caption")
    assert texts(driver, ".sgv-words")[0].startswith("Analyze the image")

    stream = io.BytesIO()
    Image.new("RGB", (50, 30), "red").save(stream, "PNG")
    (tmp_path / "red.png").write_bytes(stream.getvalue())
    (tmp_path / "broken.png").write_bytes(stream.getvalue()[:60])
    driver.execute_script(_CATCH_FILE_FIELD)
    driver.find_element(By.CSS_SELECTOR, ".sgv-upload").click()
    field = driver.find_element(By.CSS_SELECTOR, "body > input[type=file]")
    before = image(driver)
    field.send_keys(str(tmp_path / "red.png"))
    sent = until(lambda: (now := image(driver)) != before and now, "the upload")
    nothing = "(says nothing about this image)"  # the image comes first, then the columns
    until(lambda: texts(driver, ".sgv-words")[1] == nothing, "a source without a caption")
    driver.find_element(By.CSS_SELECTOR, ".sgv-question input").send_keys("What is red?\n")
    until(lambda: "What is red?" in texts(driver, ".sgv-words")[0], "an answer")
    until(lambda: texts(driver, ".sgv-message") == [""], "the message to be gone")

    field.send_keys(str(tmp_path / "broken.png"))
    said = until(lambda: [t for t in texts(driver, ".sgv-message") if len(t) > 2], "a refusal")
    assert said[0].startswith("broken.png: corrupt") and "try another image" in said[0].lower()
    assert "Traceback" not in driver.page_source and image(driver) == sent


def test_pairs_are_judged_by_key_and_by_button(driver, served, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    cell = """
from sgv_lab.study.judging import Pair, Votes
from sgv_lab.widgets import judging_page
pairs = [Pair(f"{i}.png", (("a", f"first {i}"), ("b", f"second {i}"))) for i in range(5)]
judging_page(pairs, ".", Votes("votes.jsonl"), "ann")
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(book, tmp_path / "judge.ipynb")
    driver.get(served(tmp_path / "judge.ipynb"))
    votes = Votes(tmp_path / "votes.jsonl")
    state = until(lambda: driver.find_elements(By.CSS_SELECTOR, ".sgv-judged"), "the page")[0]
    until(lambda: state.text == "0 of 5 judged by ann", "the first pair")
    for number, key in enumerate(("1", "3"), 1):
        press(driver, state, key, lambda number=number: len(votes.table()) == number)
    driver.find_elements(By.CSS_SELECTOR, ".sgv-judge button")[1].click()
    until(lambda: state.text == "3 of 5 judged by ann", "a vote by button")
    assert votes.table()["choice"].tolist() == ["left", "right", "same"]

    driver.get(driver.current_url)  # a new kernel: it goes on
    until(lambda: texts(driver, ".sgv-judged") == ["3 of 5 judged by ann"], "the page again")


def test_captions_are_walked_through_by_image_and_by_source(driver, served, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    names = ("one.png", "gone.png")
    Image.new("RGB", (50, 30), "red").save(tmp_path / names[0])
    for who in ("first", "second"):
        said = [
            {"image": name, "id": name, "conversations": [
                {"from": "human", "value": "<image>\nDescribe."},
                {"from": "gpt", "value": f"{who} says <b>{name}</b>"},
            ]} for name in names
        ]  # fmt: skip
        (tmp_path / f"{who}.json").write_text(json.dumps(said))
    cell = """
from sgv_lab.captions import convert
from sgv_lab.widgets import caption_browser
caption_browser(convert.convert_all(["first.json", "second.json"]), ".")
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(book, tmp_path / "browse.ipynb")
    driver.get(served(tmp_path / "browse.ipynb"))
    until(lambda: image(driver), "an image")
    page = driver.find_element(By.TAG_NAME, "body")
    for who in ("first", "second"):
        assert f"{who} says <b>one.png</b>" in page.text  # as text: a file holds no HTML
    driver.find_element(By.CSS_SELECTOR, ".noUi-handle").send_keys(Keys.ARROW_RIGHT)
    until(lambda: "first says <b>gone.png</b>" in page.text, "the next image's captions")
    assert "gone.png: " in page.text and not image(driver)  # a missing one is named in its place
    Select(driver.find_element(By.CSS_SELECTOR, "select[multiple]")).deselect_by_index(0)
    until(lambda: "first says" not in page.text, "one source alone")
    assert "second says <b>gone.png</b>" in page.text

"""The page at / in headless Chromium: it loads, talks, shows numbers that move, stops, and takes text as text."""

import shutil
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))
import server

ANSWER = "The capital of Thailand is Bangkok."


@pytest.fixture(scope="module")
def url():
    with server.serve("--dtype", "f32", "--log", "off") as started:
        yield started.url


@pytest.fixture
def page(url):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(url)
        yield browser
        assert complaints(browser) == []
    finally:
        browser.quit()


def complaints(page):
    """What the browser has to say about the page since it was asked last."""
    return [line for line in page.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


def until(page, found):
    return WebDriverWait(page, 60, poll_frequency=0.02).until(lambda page: found())


def text(page, name):
    return page.find_element(By.ID, name).text


def say(page, words, how=Keys.ENTER):
    box = page.find_element(By.ID, "prompt")
    box.send_keys(words)
    box.send_keys(how)


def answers(page):
    return [found.text for found in page.find_elements(By.CSS_SELECTOR, "article.assistant .text")]


def notes(page):
    return [found.text for found in page.find_elements(By.CSS_SELECTOR, "article .note")]


def test_it_answers_and_its_numbers_move(page):
    until(page, lambda: text(page, "health") == "ready")
    assert "model" in text(page, "model") and text(page, "t-cache").lower() == "kv blocks"
    before = int(text(page, "finished"))
    say(page, "Do you know the capital of Thailand?")
    until(page, lambda: notes(page))
    assert answers(page) == [ANSWER] and "tokens" in notes(page)[0]
    until(page, lambda: int(text(page, "finished")) > before)
    until(page, lambda: text(page, "used") == "0")
    total = int(text(page, "used")) + int(text(page, "cached")) + int(text(page, "free"))
    assert total > 0
    say(page, "And what did I ask, now that the words before are known and in the cache already, please?")
    until(page, lambda: len(notes(page)) == 2)
    until(page, lambda: int(text(page, "cached")) > 0 and " of " in text(page, "hits"))


def test_tokens_arrive_one_by_one_and_stop_works(page):
    # The model is faster than a driver can look, so the page itself counts how often the answer grows, and presses the
    # button at the fifth time.
    page.execute_script("""
        window.grown = 0;
        new MutationObserver(() => {
            const text = document.querySelector("article.assistant .text")?.textContent ?? "";
            if (text.length > (window.seen ?? 0)) { window.seen = text.length; window.grown += 1; }
            if (window.grown === 5) document.getElementById("stop").click();
        }).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true });""")
    say(page, "Tell me a story.")
    until(page, lambda: notes(page))
    assert notes(page) == ["stopped"] and page.execute_script("return window.grown") >= 5
    stopped = answers(page)
    until(page, lambda: text(page, "running") == "0" and text(page, "used") == "0")
    assert answers(page) == stopped and len(stopped[0]) > 5
    assert page.switch_to.active_element.get_attribute("id") == "prompt"


def test_what_a_model_says_stays_text(page):
    evil = "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'><b>bold</b>"
    # The model cannot be made to say it, so the answer of the server is put in its place.
    page.execute_script("""
        const evil = arguments[0], real = window.fetch;
        window.fetch = (path, options) => {
            if (path !== "/v1/chat/completions") return real(path, options);
            const event = { choices: [{ index: 0, delta: { content: evil }, finish_reason: "stop" }] };
            return Promise.resolve(new Response("data: " + JSON.stringify(event) + "\\n\\ndata: [DONE]\\n\\n"));
        };""", evil)
    say(page, evil)
    until(page, lambda: notes(page))
    assert answers(page) == [evil]
    assert page.find_element(By.CSS_SELECTOR, "article.user .text").text == evil
    assert page.execute_script("return window.broken") is None
    assert page.find_elements(By.CSS_SELECTOR, "#log script, #log img, #log b") == []


def test_an_error_is_told(page):
    page.execute_script("document.getElementById('temperature').value = 99;")
    say(page, "Hello")
    until(page, lambda: notes(page))
    assert "temperature" in notes(page)[0] and page.find_elements(By.CSS_SELECTOR, ".note.error")
    # A refused request is told by the browser too; that line is expected.
    assert [line for line in complaints(page) if "400" not in line["message"]] == []


def test_it_works_by_keyboard_and_every_control_has_a_name(page):
    unnamed = page.execute_script("""
        return [...document.querySelectorAll("button, input, textarea, [role]")]
            .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim() || one.role === "status"))
            .map((one) => one.id);""")
    assert unnamed == []
    assert page.switch_to.active_element.get_attribute("id") == "prompt"
    say(page, "one line", Keys.SHIFT + Keys.ENTER + Keys.NULL + "and another")
    assert page.find_element(By.ID, "prompt").get_attribute("value") == "one line\nand another"
    reached = set()
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.switch_to.active_element.get_attribute("id"))
    assert {"send", "clear", "system", "temperature", "max_tokens", "seed", "key"} <= reached


def test_both_schemes_can_be_read(page):
    for scheme in ("light", "dark"):
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        ground, ink = page.execute_script("""
            const style = getComputedStyle(document.body);
            return [style.backgroundColor, style.color];""")
        assert contrast(ground, ink) > 7, (scheme, ground, ink)


def contrast(a, b):
    """WCAG 2.2, 1.4.3."""
    def light(colour):
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)

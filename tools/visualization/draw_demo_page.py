"""Draw docs/images/demo_page.jpg: the demo page in a browser, as it is after a click on a sample.

Needs what `make demo` leaves in work_dirs, Gradio, Selenium, and Debian's Chromium with its driver:

    apt install chromium chromium-driver
    python tools/visualization/draw_demo_page.py
"""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image

IMAGE = Path(__file__).resolve().parents[2] / 'docs' / 'images' / 'demo_page.jpg'
MODEL = 'stvit-tiny_digits'
SAMPLE = 8
WIDTH = 1280  # of the browser's window
DRAWN = 1000  # of the picture


def open_browser(profile: Path):
    """Chromium without a screen, which asks nobody for updates; ``None`` where it or its driver is not installed.

    Args:
        profile: an empty folder for what it writes.
    """
    browser, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not (browser and driver):
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        *('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking'),
        *('disable-component-update', 'disable-sync', f'user-data-dir={profile}', f'window-size={WIDTH},1400'),
    ):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def draw(browser, url: str) -> Image.Image:
    """The page from top to bottom, with the answer for one sample."""
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(selector: str, number: int = 1) -> list:
        return WebDriverWait(browser, 60).until(
            lambda _: (elements := browser.find_elements('css selector', selector))[number - 1 :] and elements
        )

    browser.get(url)
    wait('#samples button', SAMPLE + 1)[SAMPLE].click()
    wait('#costs table')
    loaded = 'return [...document.querySelectorAll("img")].every(image => image.complete && image.naturalWidth > 0)'
    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(loaded))
    browser.set_window_size(WIDTH, browser.execute_script('return document.documentElement.scrollHeight') + 200)
    return Image.open(io.BytesIO(browser.get_screenshot_as_png()))


def main() -> None:
    from mmstvit.demo.page import Offer, Page, prepare_gradio

    with tempfile.TemporaryDirectory() as folder:
        prepare_gradio(f'{folder}/uploads')
        page = Page(Offer(Path('work_dirs'), 'cpu', False, Path(folder, 'samples')))
        if not page.offer.look()[0].startswith(MODEL):
            raise SystemExit(f'error: {MODEL} is not the first model in work_dirs: run `make demo` in an empty folder')
        browser = open_browser(Path(folder, 'profile'))
        if browser is None:
            raise SystemExit('error: there is no chromium or no chromedriver: apt install chromium chromium-driver')
        blocks = page.launch('127.0.0.1', None)
        try:
            page_image = draw(browser, blocks.local_url).convert('RGB')
            size = DRAWN, round(page_image.height * DRAWN / page_image.width)
            page_image.resize(size, Image.Resampling.LANCZOS).save(IMAGE, quality=75, optimize=True)
        finally:
            browser.quit()
            blocks.close()
    print(IMAGE)


if __name__ == '__main__':
    main()

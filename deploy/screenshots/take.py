"""Takes the pictures of the README from a demo run, with Debian's Chromium: `python deploy/screenshots/take.py`.

Needs the project with its extras `embedded` and `dev`, and `chromium`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from receiver.commands.demo.stage import Stage, stage
from receiver.commands.demo.story import story

FOLDER = Path(__file__).parent
REFUNDS = 24
PATIENCE = 25.0


async def played(scene: Stage) -> str:
    """Let refunds happen; the id of one that was declined, when all are final."""
    for part in story(REFUNDS):
        scene.simulator.start_refund(part.amount, part.currency, part.outcome)
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await scene.refunds()
            if len(found) == REFUNDS and all(each["final"] for each in found.values()):
                return next(
                    name
                    for name, each in found.items()
                    if each["statusDetails"]["state"] == "Declined" and not each["conflict"]
                )
            await scene.service.store.of("demo").changed(0.2)


async def main() -> None:
    """Both pictures."""
    data_dir = Path(tempfile.mkdtemp(prefix="receiver-pictures-"))
    try:
        async with stage(data_dir, lambda *_: None) as scene, async_playwright() as playwright:
            refund_id = await played(scene)
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            options: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}}
            page = await browser.new_page(**options)
            await page.goto(f"{scene.url}/")
            await page.get_by_label("Token").fill(scene.token)
            await page.keyboard.press("Enter")
            await page.get_by_role("heading", name="Overview").wait_for()
            await page.screenshot(path=FOLDER / "overview.png", full_page=True)
            await page.goto(f"{scene.url}/refunds/{refund_id}")
            await page.get_by_role("heading", name="Timeline").wait_for()
            await page.screenshot(path=FOLDER / "refund.png", full_page=True)
            await browser.close()
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())

"""``make pictures``: take the README's pictures of the console, on a server that has just run the demo."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from byteor_cloud.demo.main_job import ADMIN, Demo
from byteor_cloud.demo.processes import ApiClient, DemoError
from tests.browser.conftest import ARGS, CHROMIUM

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def main() -> int:
    """Take the pictures. Return 0, or 1 if Chromium is missing or the demo fails."""
    if CHROMIUM is None:
        print("pictures: no Chromium on PATH (apt-get install chromium-headless-shell)", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="byteor-pictures-"))
    folder.chmod(0o711)  # the embedded database may run as another account, which needs access
    demo = Demo(folder, os.environ)
    try:
        demo.serve()
        demo.run_main_job()
        _take(demo, _addresses(demo))
    except DemoError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    finally:
        demo.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _addresses(demo: Demo) -> dict[str, str]:
    """Return the address of each picture's page, after replaying the incident through the previous version.

    Raises DemoError if the API returns an error or the replay does not diverge.
    """
    api = ApiClient(demo.base, demo.sign_in[ADMIN]["token"])
    path = "/api/v1/orgs"
    for segment in ("projects", "environments"):
        path += f"/{api('GET', path)['results'][0]['id']}/{segment}"
    environment = api("GET", path)["results"][0]["id"]
    path += f"/{environment}"
    versions = {version["number"]: version["id"] for version in api("GET", f"{path}/versions")["results"]}
    incident = api("GET", f"{path}/artifacts?kind=incident_bundle")["results"][0]["id"]
    replay = api("POST", f"{path}/artifacts/{incident}/replay", {"version_id": versions[1]})["id"]
    ended = api.wait(f"{path}/replays/{replay}", "the replay", lambda found: found["finished_at"] is not None)
    if ended["status"] != "diverged":
        raise DemoError(f"the replay through version 1 ended as {ended['status']}")
    return {
        "environment": f"/admin/tenancy/environment/{environment}/change/",
        "replay": f"/admin/artifacts/replay/{replay}/change/",
    }


def _take(demo: Demo, addresses: dict[str, str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        page: Page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.goto(demo.sign_in[ADMIN]["login_url"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/admin/**")
        for name, address in addresses.items():
            page.goto(demo.base + address, wait_until="networkidle")
            page.screenshot(path=PICTURES / f"{name}.png")
            print(f"{PICTURES / name}.png")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())

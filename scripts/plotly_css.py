"""Write static/vendor/plotly/plotly.css: the rules that plotly.js would add to each page as an inline style element.

Our Content-Security-Policy forbids inline styles; with this file linked under the id that plotly.js looks for, it adds
none. Run it after vendoring another version:  .venv/bin/python scripts/plotly_css.py
"""

from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "static" / "vendor" / "plotly"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
RULES = """() => [...document.styleSheets].filter(s => s.ownerNode.id.startsWith('plotly.js-style'))
    .flatMap(s => [...s.cssRules].map(r => r.cssText)).join('\\n')"""


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page()
        page.set_content("<div id='plot'></div>")
        page.add_script_tag(path=FOLDER / "plotly-basic.min.js")
        page.evaluate("() => Plotly.newPlot('plot', [{y: [1, 2]}])")
        rules = page.evaluate(RULES)
        browser.close()
    (FOLDER / "plotly.css").write_text(rules + "\n")
    print(f"{len(rules)} bytes of rules")


if __name__ == "__main__":
    main()

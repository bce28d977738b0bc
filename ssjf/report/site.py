"""Static pages: rendering, search index, links between pages, links to launch notebooks."""

import json
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import Any

from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.report.figures import cell


class Site:
    """Writes pages into a folder and collects its search index."""

    def __init__(self, folder: Path, **shared: Any) -> None:
        self.folder, self.shared = folder, shared
        self.pages: set[str] = set()  # those that links may lead to
        self.index: list[dict[str, str]] = []

    def page(self, href: str, template: str, **given: Any) -> None:
        """Render a template to ``href``; ``root`` is the relative path to the site's top."""
        target = self.folder / href
        target.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * href.count("/")
        html = (
            _environment()
            .get_template(template)
            .render(root=root, here=href, **self.shared, **given)
        )
        target.write_text(html, encoding="utf-8")

    def find(self, kind: str, title: str, text: str, href: str) -> None:
        """Add an entry to the search index."""
        plain = " ".join(text.split())
        self.index.append({"kind": kind, "title": title, "text": plain, "href": href})

    def finish(self) -> None:
        """Write the script of all pages, with the search index."""
        script = (Path(__file__).parent / "templates" / "site.js").read_text(encoding="utf-8")
        index = json.dumps(self.index, ensure_ascii=False)
        (self.folder / "site.js").write_text(f"const INDEX = {index};\n{script}", encoding="utf-8")

    def linked(self, html: str, folder: str) -> str:
        """Rewrite the links of a rendered file of ``folder`` to pages of this site.

        A link to another file of the repository becomes plain text.
        """

        def led(match: re.Match[str]) -> str:
            path, hash_, anchor = match["link"].partition("#")
            path = re.sub(r"^\.\./results/", "../", path)
            path = re.sub(r"\.(md|ipynb)$", ".html", path)
            target = posixpath.normpath(f"{folder}/{path}")
            here = not path or target in self.pages or (self.folder / target).is_file()
            return f'<a href="{path}{hash_}{anchor}">{match["text"]}</a>' if here else match["text"]

        html = html.replace('src="../results/', 'src="../')
        return re.sub(r'<a href="(?!\w+:)(?P<link>[^"]*)"[^>]*>(?P<text>.*?)</a>', led, html)


def notebook_html(book: Any, title: str) -> str:
    """Render the cells as HTML. nbconvert's full page would load scripts from the network."""
    from nbconvert import HTMLExporter

    book.metadata.pop("widgets", None)  # live widgets need a server; their images stay
    for made in book.cells:
        made.metadata.setdefault("alt", title)  # what a screen reader says of its pictures
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    return exporter.from_notebook_node(book)[0]


def markdown_html(text: str) -> str:
    """Render markdown as HTML, with code highlighted as in notebooks."""
    from nbconvert.filters import markdown2html

    return markdown2html(text)


def repository() -> str:
    """The address of the repository in CITATION.cff; empty if there is none."""
    citation = paths.root() / "CITATION.cff"
    text = citation.read_text(encoding="utf-8") if citation.exists() else ""
    found = re.search(r"^repository-code:\s*[\"']?([^\s\"']+)", text, re.MULTILINE)
    return found[1] if found else ""


def launchers(address: str, notebook: str) -> dict[str, str]:
    """Links to run a notebook of a GitHub repository; none without an address."""
    if not address:
        return {}
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    if not found:
        example = "https://github.com/OWNER/NAME"
        raise InputError(f"{address!r} is not the address of a repository on GitHub: {example}")
    path = f"notebooks/{notebook}.ipynb"
    return {
        "Binder": f"https://mybinder.org/v2/gh/{found[1]}/HEAD?urlpath=lab/tree/{path}",
        "Colab": f"https://colab.research.google.com/github/{found[1]}/blob/main/{path}",
    }


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from pygments.formatters import HtmlFormatter

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["cell"] = cell
    for style, name in (("default", "light_code"), ("github-dark", "dark_code")):
        environment.globals[name] = HtmlFormatter(style=style).get_style_defs(".highlight")
    return environment

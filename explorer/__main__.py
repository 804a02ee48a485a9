"""``python -m explorer``: serve the explorer as a page on this machine, through Voilà."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import commands
import datasets
import detection
from explorer.exploration import Exploration

_FOLDER = Path(__file__).resolve().parent
_PAGE = _FOLDER.with_name("app.ipynb")

# The browser refuses to load from, or send to, any other server than this one.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'self'; frame-ancestors 'self'"
)

#: Starts Voilà without a package that takes a second to import, to check addresses that no page of ours contains.
_START = "import sys; sys.modules['rfc3987_syntax'] = None; from voila.app import main; main()"

#: Environment variables that pass the location of the photos, and what tells people apart, to the page's notebook.
_SOURCE_VARIABLE, _PEOPLE_VARIABLE = "ANONFACES_DATA", "ANONFACES_PEOPLE"

# Settings for other installations of Python and Jupyter, with which the page would find their modules and kernels.
_FOREIGN = ("JUPYTER_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the explorer as a page on this machine, through Voilà; stop it with Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m explorer", description=main.__doc__)
    parser.add_argument("source", nargs="?", default="orl", help="orl, or a folder of photos (default: orl)")
    datasets.add_people_option(parser)
    parser.add_argument("--port", type=int, default=8866, help="port of the page (default: 8866)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return commands.run_command(parser, arguments, _serve)


def _serve(options: argparse.Namespace) -> None:
    known = options.source in datasets.DATASETS
    source = options.source if known else str(Path(options.source).expanduser().resolve())
    faces = datasets.load_faces(source, per_identity=1, people=options.people)
    print(faces)
    detection.report_photos(faces)
    # Describe the photos here, with a progress bar; the page takes them from the cache.
    _ = Exploration(faces).gallery
    command = [
        sys.executable, "-c", _START, str(_PAGE), f"--port={options.port}", "--template=explorer",
        f"--Voila.tornado_settings={ {'headers': {'Content-Security-Policy': _POLICY}} }",
    ]  # fmt: skip
    if options.no_browser:
        command.append("--no-browser")
    from joblib.externals.loky import get_reusable_executor  # slow to import

    # The server takes the place of this process, so that all signals reach it; it ends its kernels when it ends.
    get_reusable_executor().shutdown()
    sys.stdout.flush()
    os.chdir(_PAGE.parent)
    os.execve(sys.executable, command, _environment(source, options.people))


def _environment(source: str, people: str) -> dict[str, str]:
    """Return the environment variables of the page: those of this process without settings for other installations."""
    own = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    page = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PATH": str(_FOLDER),
    }  # where Voilà finds the page's template
    return own | page | {_SOURCE_VARIABLE: source, _PEOPLE_VARIABLE: people}


if __name__ == "__main__":
    sys.exit(main())

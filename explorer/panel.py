"""The explorer's widgets, and the thread that draws surrogates in the background."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from urllib.parse import parse_qsl, urlencode

import ipywidgets as widgets
from traitlets import TraitError

import embedding
import partitioning
from datasets import Faces
from explorer.exploration import Exploration, Selection, View
from explorer.rendering import alert_html, map_svg, members_html, numbers_html, percent, render
from labels import label

#: Seconds without a change before numbers are updated, to skip a slider's intermediate values, and before images are
#: drawn.
_SHOW_DELAY, _DRAW_DELAY = 0.03, 0.6


class _Background:
    """One thread that runs jobs in order, for all panels: models are not thread-safe."""

    def __init__(self):
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.submit = self._jobs.put  # a job must catch its own errors
        threading.Thread(target=self._work, name="explorer", daemon=True).start()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for all submitted jobs, and return whether they are done."""
        done = threading.Event()
        self.submit(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


@functools.cache
def _background() -> _Background:
    """Return the thread of all panels, which starts with the first panel."""
    return _Background()


class Panel(widgets.VBox):
    """The widgets around an `Exploration`.

    The attributes ``k shrinkage embedding partitioner anonymizer cluster drawing`` are the controls. Errors are shown
    in ``message``.

    Parameters
    ----------
    exploration : Exploration
    settings, loaded_by : str, optional
        See `explore`.
    """

    def __init__(self, exploration: Exploration, settings: str = "", loaded_by: str = ""):
        self.exploration, self._loaded_by = exploration, loaded_by
        self.view: View | None = None  # simulated
        self.confirmed: View | None = None
        self._refilling = False
        self._anchor = 0  # the photo whose cluster stays selected when clusters change
        self._ticket = 0  # number of the latest job; older jobs stop
        self._pending: dict[str, asyncio.TimerHandle] = {}
        self._make_controls(exploration.first_selection())
        refused = self._set_controls(dict(parse_qsl(settings)))
        self.message, self.map, self.numbers, self.members, self.code = (widgets.HTML() for _ in range(5))
        self._shown = widgets.Checkbox(layout={"display": "none"})  # ticked by a page once it is loaded
        self._shown.add_class("anonfaces-shown")
        style = widgets.HTML(render("style"))
        super().__init__([style, self._top(refused), self.members, self.code, self._shown])
        self.add_class("anonfaces-explorer")
        for control in self._controls.values():
            control.observe(self._on_selection, "value")
        self.cluster.observe(self._on_cluster, "index")
        self.drawing.observe(self._on_drawing, "value")
        self._shown.observe(self._on_shown, "value")
        self.refresh()
        self._later(_DRAW_DELAY, self.start_drawing)

    def _make_controls(self, first: Selection) -> None:
        e, style = self.exploration, {"description_width": "92px"}

        def menu(names: Sequence[str], value: str, text: str, tooltip: str) -> widgets.Dropdown:
            options = [(label(name), name) for name in names]
            words = {"description": text, "tooltip": tooltip, "style": style}
            return widgets.Dropdown(options=options, value=value, **words)

        self.k = widgets.IntSlider(
            value=first.k, min=e.k_values[0], max=e.k_values[-1], description="k (people)", style=style,
            tooltip="Minimum number of people per cluster, who share one surrogate",
        )  # fmt: skip
        self.shrinkage = widgets.FloatSlider(
            value=first.shrinkage, min=0, max=1, step=0.05, description="Shrinkage", readout_format=".0%", style=style,
            tooltip="How far each surrogate is shrunk towards the average of all other people",
        )  # fmt: skip
        self.embedding = menu(
            embedding.available(), first.embedding, "Embedding", "Descriptors by which people are clustered"
        )
        self.partitioner = menu(
            partitioning.PARTITIONERS, first.partitioner, "Partition", "How people are clustered"
        )
        self.anonymizer = menu(
            e.anonymizers, first.anonymizer, "Anonymizer", "Method that draws the surrogates"
        )
        self.drawing = widgets.Checkbox(
            value=True, indent=False, description="Draw images, confirm numbers",
            tooltip="In the background, once nothing has changed for a moment",
        )  # fmt: skip
        self.cluster = widgets.Dropdown(description="Cluster", style=style, tooltip="The cluster shown below")
        self._controls = {
            name: getattr(self, name) for name in ("k", "shrinkage", "embedding", "partitioner", "anonymizer")
        }
        for name, control in {**self._controls, "cluster": self.cluster}.items():
            control.layout.width = "300px"
            control.add_class(f"anonfaces-{name}")

    def _set_controls(self, settings: dict[str, str]) -> list[str]:
        """Set controls to values given as text, and return those that do not fit these photos."""
        refused = []
        for name in self._controls.keys() & settings:
            control = self._controls[name]
            before = control.value
            try:
                value = type(before)(settings[name])
                control.value = value
                fits = control.value == value
            except (ValueError, TraitError):
                fits = False
            if not fits:
                control.value = before
                refused.append(f"{name}={settings[name]}")
        return sorted(refused)

    def _top(self, refused: Sequence[str]) -> widgets.HBox:
        """Return the upper part of the panel: controls, map and numbers, side by side."""
        e = self.exploration
        heading = widgets.HTML(render("heading", e.faces, refused))
        explanation = widgets.HTML(render("explanation", [label(name) for name in e.unfit_anonymizers]))
        explanation.layout.width = self.message.layout.width = heading.layout.width = "300px"
        self.map.layout.width = "470px"
        self.numbers.layout = widgets.Layout(
            flex="1 1 430px", min_width="min(430px, 100%)", max_width="640px"
        )
        left = widgets.VBox([heading, *self._controls.values(), self.drawing, self.message, explanation])
        return widgets.HBox(
            [left, widgets.VBox([self.cluster, self.map]), self.numbers],
            layout=widgets.Layout(flex_flow="row wrap", grid_gap="14px"),
        )

    # -- user actions ----------------------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the selection in the controls."""
        values = {name: control.value for name, control in self._controls.items()}
        return Selection(**{**values, "shrinkage": round(self.shrinkage.value, 4)})

    def _on_selection(self, _change) -> None:
        self._ticket += 1  # stop drawing the previous selection
        self._later(_SHOW_DELAY, self.refresh)
        self._later(_DRAW_DELAY, self.start_drawing)

    def _on_cluster(self, change) -> None:
        if self._refilling or change["new"] is None:
            return
        self._anchor = int(self.view.clusters[change["new"]][0])
        self._guarded("The cluster cannot be shown", self._show_cluster)
        if self.confirmed is None:
            self._later(_DRAW_DELAY, self.start_drawing)

    def _on_drawing(self, change) -> None:
        self._ticket += 1
        if change["new"]:
            self.refresh()
            self.start_drawing()
        else:
            self._say("Simulated. Drawing is off.")

    def _on_shown(self, _change) -> None:
        """Send everything again: a page misses what changes while it loads."""
        for part in (self.cluster, self.message, self.map, self.numbers, self.members, self.code):
            part.send_state()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call a method after a delay, which restarts if the same method is requested again."""
        if action.__name__ in self._pending:
            self._pending.pop(action.__name__).cancel()
        loop = _running_loop()
        if loop is None:  # a plain script
            action()
        else:
            self._pending[action.__name__] = loop.call_later(seconds, action)

    # -- display ---------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show a simulation of the selection."""
        selection = self.selection()
        if not self.exploration.is_described(selection.embedding):
            self._say(f"Describing {len(self.exploration.faces)} photos ({label(selection.embedding)}) …")
        if self._guarded("This cannot be shown", lambda: self._take(self.exploration.simulate(selection))):
            self._say("Simulated." if self.drawing.value else "Simulated. Drawing is off.")

    def _take(self, view: View) -> None:
        """Show another simulated view."""
        self.view, self.confirmed = view, None
        people = [len(set(self.exploration.faces.identities[rows])) for rows in view.clusters]
        self._refilling = True  # so that filling the menu does not count as the user's choice
        self.cluster.options = [f"{i + 1}: {n_people} people" for i, n_people in enumerate(people)]
        self.cluster.index = int(view.labels[self._anchor])
        self._refilling = False
        self._show_cluster()
        self._show_numbers()
        settings = urlencode(asdict(view.selection))
        self.code.value = render("code", view.selection, settings, self._loaded_by, self.exploration)

    def _show_cluster(self) -> None:
        view, chosen = self.confirmed or self.view, self.cluster.index
        self.map.value = map_svg(self.exploration, view, chosen)
        self.members.value = members_html(self.exploration, view, chosen)

    def _show_numbers(self) -> None:
        e = self.exploration
        self.numbers.value = numbers_html(self.view, self.confirmed, e.gallery, e.threshold)

    def _surrogates(self) -> str:
        n_clusters = len(self.view.clusters)
        return "1 surrogate" if n_clusters == 1 else f"{n_clusters} surrogates"

    def _say(self, text: str, state: str = "simulated") -> None:
        self.message.value = render("status", text, state)

    def _guarded(self, doing: str, action: Callable[[], None]) -> bool:
        """Call a function, show its error as text if it fails, and return whether it succeeded."""
        try:
            action()
        except Exception as error:  # no caller of a panel could catch it
            self.message.value = alert_html(error, doing)
            return False
        return True

    # -- drawing in the background ---------------------------------------------------------------------------

    def start_drawing(self) -> None:
        """Draw the images of the view in the background, unless they are drawn or drawing is off; older jobs stop."""
        current = self.view is not None and self.view.selection == self.selection()
        if not self.drawing.value or not current or self.confirmed:
            return
        self._ticket += 1
        self._say(f"Simulated. Next: drawing {self._surrogates()} …")
        job = partial(self._draw, self.view, self.cluster.index, self._ticket, _running_loop())
        _background().submit(job)

    def _draw(self, view: View, first: int, ticket: int, loop: asyncio.AbstractEventLoop | None) -> None:
        """In the background: settle the partition, then draw; results go to the panel's own thread."""

        def outdated() -> bool:
            return ticket != self._ticket

        def tell(action: Callable, *arguments) -> None:
            def unless_outdated() -> None:
                if not outdated():
                    self._guarded("The result cannot be shown", partial(action, *arguments))

            if loop is None:
                unless_outdated()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(unless_outdated)

        def report(drawn: int, n_drawn: int) -> None:
            text = f"Simulated. {name}: {n_drawn} of {len(view.clusters)} surrogates drawn."
            tell(self._show_progress, drawn, text)

        if outdated():
            return
        e, name = self.exploration, label(view.selection.anonymizer)
        try:
            if not view.settled:
                view = e.simulate(view.selection, quick=False)
                first = int(view.labels[self._anchor])
                tell(self._take, view)
            tell(self._say, f"Simulated. Preparing {name} for these photos …")
            e.model(view.selection.anonymizer)
            confirmed = e.confirm(view, first, outdated, report)
            if confirmed is not None:
                tell(self._show_confirmed, confirmed)
        except Exception as error:  # show it, and keep the panel usable
            tell(setattr, self.message, "value", alert_html(error, f"{name} cannot draw this"))

    def _show_progress(self, drawn: int, text: str) -> None:
        self._say(text)
        if drawn == self.cluster.index:
            self._show_cluster()

    def _show_confirmed(self, confirmed: View) -> None:
        self.confirmed = confirmed
        self._show_cluster()
        self._show_numbers()
        simulated, drawn = (percent(view.scores["re_identification"]) for view in (self.view, confirmed))
        self._say(
            f"Confirmed: {self._surrogates()} drawn and measured. Re-identification {drawn}, simulated {simulated}.",
            "confirmed",
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of a notebook's kernel; None in a plain script."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def explore(faces: Faces, settings: str = "", loaded_by: str = "") -> widgets.VBox:
    """Show a panel to try out k, embedding, partition, anonymizer and shrinkage, in a notebook or as a page.

    The panel shows the clusters on a map, the members of the selected cluster with their surrogate, and the measures
    of the release. Numbers are first simulated from descriptors, then confirmed from images drawn in the background.

    Parameters
    ----------
    faces : Faces
        Photos of at least two people; `faces.others`, if any, is the adversary's gallery.
    settings : str, optional
        Values of the controls to start with, for example ``"k=3&anonymizer=pixel"``, as in the address of the page.
    loaded_by : str, optional
        The expression that loaded `faces`, with which the code that the panel shows runs on its own.

    Returns
    -------
    ipywidgets.VBox
        The panel, or the reason why these photos cannot be explored.

    Raises
    ------
    TypeError
        If `faces` is not a `Faces`.
    """
    try:
        return Panel(Exploration(faces), settings, loaded_by)
    except ValueError as error:
        alert = alert_html(error, "These photos cannot be explored")
        panel = widgets.VBox([widgets.HTML(render("style") + alert)])
        panel.add_class("anonfaces-explorer")
        return panel

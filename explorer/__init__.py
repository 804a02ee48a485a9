"""An interactive panel to try out k, embedding, partition, anonymizer and shrinkage.

Every release is shown twice. First it is *simulated*, immediately and without images: the descriptor of a surrogate is
approximated by the weighted mean of the descriptors that it mixes. Then it is *confirmed*: the images are drawn in the
background, described, and measured as in `evaluation.evaluate`. A drawn surrogate is farther from all photos than that
mean, so the simulated loss is too low and the simulated re-identification rate too high.

- ``exploration.py``: selection -> clusters, surrogates, numbers; without widgets
- ``rendering.py``: results -> HTML, with the templates in ``panel.html``
- ``panel.py``: the widgets, and the thread that draws in the background
- ``__main__.py``: ``python -m explorer``, the panel as a page in the browser, with the template in ``voila``
"""

from explorer.exploration import Cluster, Exploration, Selection, View
from explorer.panel import Panel, explore

__all__ = ["Cluster", "Exploration", "Panel", "Selection", "View", "explore"]

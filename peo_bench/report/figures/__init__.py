"""The figures of the report as plotly figures (SVG traces only: WebGL ones need `eval`, which the CSP forbids).

Colours of text, grid and special marks are set by the page from its theme: a trace says in
``meta["role"]`` whether it is ``ink`` (reference policy) or ``muted`` (oracle, reference point).
"""

from peo_bench.report.figures.attained import attainment_panel
from peo_bench.report.figures.front import Geometry, drawn_order, front_figure, front_geometry, oracle_lines
from peo_bench.report.figures.measured import steering_figure
from peo_bench.report.figures.panels import Panel, panels, run_panels
from peo_bench.report.figures.style import Style, method_styles, plain

__all__ = [
    "Geometry",
    "Panel",
    "Style",
    "attainment_panel",
    "drawn_order",
    "front_figure",
    "front_geometry",
    "method_styles",
    "oracle_lines",
    "panels",
    "plain",
    "run_panels",
    "steering_figure",
]

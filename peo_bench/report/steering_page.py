"""The page of `peo-bench steer --web`, in the looks of the report."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from peo_bench.report import figures, svg
from peo_bench.report.build import asset, content_security_policy, environment


def steering_page(methods: Sequence[str], title: str) -> tuple[bytes, str]:
    """Return the page of `steer --web` and its content security policy."""
    styles = figures.method_styles(list(methods))
    script, style = asset("steer.js"), asset("report.css")
    html = (
        environment()
        .get_template("steer.html.j2")
        .render(
            title=title,
            methods=[(method, Markup(svg.swatch(styles[method]))) for method in methods],
            script=Markup(script),
            style=Markup(style),
        )
    )
    return html.encode(), content_security_policy([script], [style]) + "; connect-src 'self'; frame-ancestors 'none'"

"use strict";
// Draws the figures in the page's theme, opens a policy's texts. Texts only ever go through textContent.
const Report = (() => {
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("report-data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // ---- figures ----
  const hidden = new Set();
  const ringed = {};  // by figure: what the slider rings, set by explore.js
  const drawn = new Set();
  const chosen = {};  // by figure: which of its variants is shown, the first if none was chosen
  const OPTIONS = { displayModeBar: false, responsive: true, showTips: false, displaylogo: false };

  const scaled = (size, scale) => (Array.isArray(size) ? size.map((one) => one * scale) : size * scale);

  function themed(spec, width) {
    const figure = structuredClone(spec);
    const scale = width < 520 ? 0.75 : 1;
    const [ink, muted, rule, card] = ["ink", "muted", "rule", "card"].map(colour);
    for (const trace of figure.data) {
      const { role, method, diverging } = trace.meta;
      const paint = { ink, muted }[role];
      trace.visible = !hidden.has(method) && !hidden.has(`role ${role}`);
      if (trace.type === "heatmap") trace.colorscale[diverging ? 1 : 0][1] = colour("plain-bg");
      if (trace.type === "scatter" && role === "points") trace.marker && (trace.marker.line = { ...trace.marker.line, color: card });
      if (trace.type === "scatter" && trace.marker) trace.marker.size = scaled(trace.marker.size, scale);
      if (!paint) continue;
      if (trace.marker) trace.marker.color = paint;
      if (trace.line) trace.line.color = paint;
      for (const bars of [trace.error_x, trace.error_y]) if (bars) bars.color = rule;
    }
    const font = getComputedStyle(document.body).fontFamily;
    figure.layout.font = { family: font, size: 13, color: muted };
    figure.layout.hoverlabel = { align: "left", bgcolor: card, bordercolor: muted, font: { family: font, color: ink, size: 13 } };
    for (const axis of ["xaxis", "yaxis"]) Object.assign(figure.layout[axis], { gridcolor: rule, linecolor: rule });
    for (const note of figure.layout.annotations || []) {
      Object.assign(note, { arrowcolor: muted, font: { ...note.font, color: note.showarrow ? ink : muted } });
    }
    return figure;
  }

  const rings = (id, width) => {
    const marks = (ringed[id] || []).filter((mark) => !hidden.has(mark.method));
    return {
      type: "scatter", mode: "markers", x: marks.map((mark) => mark.at[0]), y: marks.map((mark) => mark.at[1]), hoverinfo: "skip",
      marker: { symbol: "circle-open", size: width < 520 ? 19 : 25, color: colour("ink"), line: { width: 2.5 } },
      meta: { method: "", role: "ring" },
    };
  };

  function draw(id) {
    const figure = themed(page.figures[id], byId(id).clientWidth);
    if (ringed[id]) figure.data.push(rings(id, byId(id).clientWidth));
    Plotly.react(byId(id), figure.data, figure.layout, OPTIONS);
    if (!drawn.has(id)) listen(id);
    drawn.add(id);
  }

  const redraw = () => drawn.forEach(draw);

  function ring(id, marks) {
    ringed[id] = marks;
    if (!drawn.has(id)) return;
    const plot = byId(id), { x, y } = rings(id, plot.clientWidth);
    const last = plot.data.findIndex((trace) => trace.meta.role === "ring");
    if (last < 0) draw(id);
    else Plotly.restyle(plot, { x: [x], y: [y] }, [last]);
  }

  function listen(id) {
    byId(id).on("plotly_click", (event) => {
      const key = event.points.map((point) => point.customdata).find(Boolean);
      if (key && page.policies[key]) openPanel(key);
    });
  }

  // A figure is drawn when it is about to be seen: the page is there at once, however many it has.
  const soon = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      soon.unobserve(entry.target);
      draw(entry.target.id);
    }
  }, { rootMargin: "800px" });

  for (const button of document.querySelectorAll(".legend button")) {
    const { method, role } = button.dataset;
    button.addEventListener("click", () => {
      const off = button.getAttribute("aria-pressed") === "true";
      hidden[off ? "add" : "delete"](method === undefined ? `role ${role}` : method);
      for (const same of document.querySelectorAll(".legend button")) {
        if (same.dataset.method === method && same.dataset.role === role) same.setAttribute("aria-pressed", String(!off));
      }
      redraw();
    });
  }

  for (const select of document.querySelectorAll("select[data-choose]")) {
    select.addEventListener("change", () => {
      const id = select.dataset.choose;
      page.figures[id] = page.variants[id][select.selectedIndex];
      chosen[id] = select.selectedIndex;
      draw(id);
    });
  }

  for (const box of document.querySelectorAll("[data-attainment]")) {
    const shares = page.attainment[box.dataset.attainment], id = `attainment-${box.dataset.attainment}`;
    const [first, second] = box.querySelectorAll("select");
    const subtract = () => {
      const [a, b] = [first, second].map((select) => shares[select.value]);
      page.figures[id].data[0].z = a.map((row, i) => row.map((share, j) => share - b[i][j]));
      draw(id);
    };
    for (const select of [first, second]) select.addEventListener("change", subtract);
  }

  for (const button of document.querySelectorAll("[data-svg]")) {
    button.addEventListener("click", () => Tables.save(`${button.dataset.svg}.svg`, picture(button.dataset.svg), "image/svg+xml"));
  }

  // One SVG file from what plotly has drawn: its layers, one above the other.
  function picture(id) {
    if (!drawn.has(id)) draw(id);
    const layers = [...byId(id).querySelectorAll(".main-svg")];
    const [width, height] = ["width", "height"].map((side) => layers[0].getAttribute(side));
    const whole = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) whole.setAttribute(name, value);
    const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ width, height, fill: colour("card") })) paper.setAttribute(name, value);
    whole.append(paper, ...layers.flatMap((layer) => [...layer.cloneNode(true).childNodes]));
    return new XMLSerializer().serializeToString(whole);
  }

  // ---- the panel with a policy's texts ----
  const panel = byId("panel");
  let opener = null;

  function openPanel(key) {
    const policy = page.policies[key];
    if (panel.hidden) opener = document.activeElement;
    byId("panel-title").textContent = policy.name;
    byId("panel-asked").textContent = policy.asked;
    byId("panel-summary").textContent = policy.summary;
    const answers = page.texts && page.texts.policies[key];
    byId("panel-note").textContent = answers
      ? `${page.texts.prompts.length} of ${page.texts.n_prompts} test prompts: a fixed sample, the same for every policy. The rest is in answers.parquet.`
      : "This report holds no texts of this policy.";
    byId("panel-texts").replaceChildren();
    more(answers || [], 0);
    panel.dataset.key = key;
    panel.hidden = false;
    panel.scrollTop = 0;
    byId("panel-title").focus({ preventScroll: true });
    resize();
  }

  const AT_ONCE = 24;

  function more(answers, from) {
    const next = answers.slice(from, from + AT_ONCE).map((answer, i) => answerCard(answer, from + i));
    byId("panel-texts").append(...next);
    if (answers.length <= from + AT_ONCE) return;
    const button = element("button", "more", `Show more (${answers.length - from - AT_ONCE})`);
    button.type = "button";
    button.addEventListener("click", () => { button.remove(); more(answers, from + AT_ONCE); });
    byId("panel-texts").append(button);
  }

  function answerCard(answer, index) {
    const prompt = page.texts.prompts[index];
    const box = element("article", "text");
    const asked = element("p", "prompt", prompt.text);
    const reply = element("p", "answer", answer ? page.texts.texts[answer[0]] : "no answer: this result is missing");
    for (const part of [asked, reply]) part.dir = "auto";
    if (prompt.sensitive) box.append(cover(prompt.category, [asked, reply]));
    const scores = scoresOf(answer);
    if (prompt.category) scores.push(prompt.category);
    box.append(asked, reply, element("p", "scores", scores.join(" · ")));
    return box;
  }

  const decimal = (value) => (value == null ? "–" : value.toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "−"));
  const scoresOf = (answer) => (answer ? page.texts.scorers.map((name, i) => `${name} ${decimal(answer[i + 1])}`) : []);

  function cover(category, parts) {
    const button = element("button", "reveal", `Show text (${category})`);
    button.type = "button";
    const set = (blurred) => parts.forEach((part) => {
      part.classList.toggle("blurred", blurred);
      part.setAttribute("aria-hidden", String(blurred));
    });
    set(true);
    button.addEventListener("click", () => { set(false); button.remove(); });
    return button;
  }

  function closePanel() {
    panel.hidden = true;
    resize();
    if (opener && opener.isConnected) opener.focus();
  }

  function resize() {
    document.body.classList.toggle("with-panel", !panel.hidden);
    drawn.forEach((id) => Plotly.Plots.resize(byId(id)));
  }

  byId("panel-close").addEventListener("click", closePanel);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !panel.hidden) closePanel(); });

  // ---- rows that open texts ----
  for (const row of document.querySelectorAll("tr[data-key]")) {
    row.addEventListener("click", () => openPanel(row.dataset.key));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") openPanel(row.dataset.key); });
  }

  // A link of the contents list opens the section that it names.
  function reveal() {
    const heading = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    for (let part = heading && heading.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    if (heading) heading.scrollIntoView();
  }
  window.addEventListener("hashchange", reveal);

  window.addEventListener("beforeprint", () => document.querySelectorAll("details:not(.item)").forEach((part) => { part.open = true; }));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.documentElement.classList.remove("no-js");
  function start() {
    for (const [id, { layout }] of Object.entries(page.figures)) {
      if (!byId(id)) continue;
      if (layout.meta) byId(id).style.minWidth = `${layout.meta.least_width}px`;  // narrower cells could not hold their texts
      if (layout.height) byId(id).style.height = `${layout.height}px`;  // so that nothing moves when it is drawn
      if (id.startsWith("front-")) draw(id);
      else soon.observe(byId(id));
    }
    reveal();
  }
  return { page, element, ring, chosen, cover, scoresOf, start };
})();

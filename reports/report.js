"use strict";
// Draws the figures in the page's theme, opens a policy's texts, sorts tables. Texts only ever go through textContent.
(() => {
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

  const scaled = (size, scale) => (Array.isArray(size) ? size.map((one) => one * scale) : size * scale);

  function themed(spec, width) {
    const figure = structuredClone(spec);
    const scale = width < 520 ? 0.75 : 1;
    const [ink, muted, rule, card] = ["ink", "muted", "rule", "card"].map(colour);
    for (const trace of figure.data) {
      const paint = { ink, muted }[trace.meta.role];
      trace.visible = !hidden.has(trace.meta.method);
      if (trace.meta.role === "points") trace.marker.line = { ...trace.marker.line, color: card };
      if (trace.marker) trace.marker.size = scaled(trace.marker.size, scale);
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

  function draw() {
    for (const [id, spec] of Object.entries(page.figures)) {
      const figure = themed(spec, byId(id).clientWidth);
      const options = { displayModeBar: false, responsive: true, showTips: false, displaylogo: false };
      Plotly.react(byId(id), figure.data, figure.layout, options);
    }
  }

  function listen(id) {
    byId(id).on("plotly_click", (event) => {
      const key = event.points.map((point) => point.customdata).find(Boolean);
      if (key) openPanel(key);
    });
  }

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const off = button.getAttribute("aria-pressed") === "true";
      hidden[off ? "add" : "delete"](button.dataset.method);
      for (const same of document.querySelectorAll(".legend button")) {
        if (same.dataset.method === button.dataset.method) same.setAttribute("aria-pressed", String(!off));
      }
      draw();
    });
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
      ? `${page.texts.prompts.length} of ${page.texts.n_prompts} test prompts: a fixed sample, the same for every policy. The rest is in generations.parquet.`
      : "This run kept no texts of this policy.";
    byId("panel-texts").replaceChildren(...(answers || []).map(answerCard));
    panel.dataset.key = key;
    panel.hidden = false;
    panel.scrollTop = 0;
    byId("panel-title").focus({ preventScroll: true });
    resize();
  }

  function answerCard(answer, index) {
    const prompt = page.texts.prompts[index];
    const box = element("article", "text");
    const asked = element("p", "prompt", prompt.text);
    const reply = element("p", "answer", answer ? page.texts.texts[answer[0]] : "no answer: this result is missing");
    for (const part of [asked, reply]) part.dir = "auto";
    if (prompt.sensitive) box.append(cover(prompt.category, [asked, reply]));
    const scores = answer ? page.texts.scorers.map((name, i) => `${name} ${answer[i + 1] ?? "–"}`) : [];
    if (prompt.category) scores.push(prompt.category);
    box.append(asked, reply, element("p", "scores", scores.join(" · ")));
    return box;
  }

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
    for (const id of Object.keys(page.figures)) Plotly.Plots.resize(byId(id));
  }

  byId("panel-close").addEventListener("click", closePanel);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !panel.hidden) closePanel(); });

  // ---- rows that open texts ----
  for (const row of document.querySelectorAll("tr[data-key]")) {
    row.addEventListener("click", () => openPanel(row.dataset.key));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") openPanel(row.dataset.key); });
  }

  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.classList.remove("no-js");
  draw();
  Object.keys(page.figures).filter((id) => id.startsWith("front-")).forEach(listen);
})();

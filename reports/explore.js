"use strict";
// The preference slider, the cards beside each other, the gallery. Texts only ever go through textContent.
(() => {
  const { page, element, ring, chosen, cover, scoresOf } = Report;
  const texts = page.texts;
  const steps = {};  // by task: where its slider stands

  function card(method, step, prompt) {
    const key = method.keys[step], policy = page.policies[key];
    const box = element("article", "card");
    const swatch = document.querySelector(`.legend button[data-method="${CSS.escape(method.method)}"] svg, .legend .key svg`);
    const title = element("p", "title");
    title.append(...(swatch ? [swatch.cloneNode(true)] : []), element("span", "", method.name));
    box.append(title, element("p", "scores", policy.summary));
    box.dataset.key = key;
    if (!texts || prompt === null) return box;
    const answer = (texts.policies[key] || [])[prompt];
    const reply = element("p", "answer", answer ? texts.texts[answer[0]] : "no answer: this result is missing");
    reply.dir = "auto";
    box.append(reply, element("p", "scores", scoresOf(answer).join(" · ")));
    return box;
  }

  function cards(task, prompt) {
    return page.steer[task].methods.map((method) => card(method, steps[task], prompt));
  }

  function blur(prompt, box, parts) {
    box.querySelectorAll(":scope > .reveal").forEach((button) => button.remove());
    for (const part of parts) { part.classList.remove("blurred"); part.removeAttribute("aria-hidden"); }
    if (texts.prompts[prompt].sensitive) parts[0].before(cover(texts.prompts[prompt].category, parts));
  }

  function dial(box) {
    const task = box.dataset.task, steer = page.steer[task], slider = box.querySelector("input");
    let prompt = texts ? steer.prompt : null;
    const shown = box.querySelector(".prompt"), list = box.querySelector(".cards");
    const mark = () => {
      const front = `front-${task}`;
      ring(front, steer.methods.filter((method) => method.method !== "reference")
        .map((method) => ({ method: method.method, at: page.policies[method.keys[steps[task]]].at[chosen[front] || 0] }))
        .filter((one) => one.at));
    };
    const show = () => {
      steps[task] = Number(slider.value);
      slider.setAttribute("aria-valuetext", steer.steps[steps[task]]);
      box.querySelector(".now").textContent = steer.steps[steps[task]];
      mark();
      const revealed = texts && list.children.length && !box.querySelector(":scope > .reveal");
      list.replaceChildren(...cards(task, prompt));
      if (texts && !revealed) hide();
    };
    const hide = () => blur(prompt, box, [shown, ...list.querySelectorAll(".answer")]);
    const ask = (index) => {
      prompt = index;
      shown.textContent = texts.prompts[index].text;
      box.querySelector(".which").textContent =
        [`prompt ${index + 1} of ${texts.prompts.length}`, texts.prompts[index].category].filter(Boolean).join(" · ");
      list.replaceChildren(...cards(task, index));
      hide();
    };
    steps[task] = Number(slider.value);
    slider.addEventListener("input", show);
    const scores = document.querySelector(`select[data-choose="front-${task}"]`);
    if (scores) scores.addEventListener("change", mark);
    if (texts) {
      box.querySelector(".random").addEventListener("click", () => {
        const others = texts.prompts.length - 1;
        ask(others ? (prompt + 1 + Math.floor(Math.random() * others)) % texts.prompts.length : 0);
      });
      ask(prompt);
    }
    show();
  }

  // ---- gallery ----
  const FILTERS = {
    all: { keep: () => true },
    spread: { keep: (prompt) => prompt.spread !== null, by: (prompt) => prompt.spread },
    unsafe: { keep: (prompt) => prompt.sensitive, by: (prompt) => prompt.worst ?? 0 },
    flip: { keep: (prompt) => prompt.flips.length > 0, by: (prompt) => prompt.flips.length },
  };

  function item(prompt, index) {
    const box = element("details", "item"), head = element("summary"), body = element("div", "opened");
    const text = element("span", "prompt", prompt.text.length > 160 ? `${prompt.text.slice(0, 160)}…` : prompt.text);
    text.dir = "auto";
    const category = element("span", "chip", prompt.sensitive ? `${prompt.category}: shown when opened` : prompt.category);
    if (prompt.sensitive) {
      text.classList.add("blurred");
      text.setAttribute("aria-hidden", "true");
    }
    if (prompt.category) head.append(category);
    if (prompt.spread !== null) head.append(element("span", "chip", `disagreement ${prompt.spread.toFixed(1)} sd`));
    if (prompt.flips.length) head.append(element("span", "chip", "judge flip"));
    head.prepend(text);
    box.append(head, body);
    box.addEventListener("toggle", () => {
      if (!box.open) return;
      text.classList.remove("blurred");
      text.removeAttribute("aria-hidden");
      category.textContent = prompt.category;
      const whole = element("p", "prompt", prompt.text);
      whole.dir = "auto";
      body.replaceChildren(whole, ...prompt.flips.map((line) => element("p", "flip", line)));
      for (const task of Object.keys(page.steer)) {
        const list = element("div", "cards");
        list.append(...cards(task, index));
        body.append(element("p", "now", page.steer[task].steps[steps[task]]), list);
      }
    });
    return box;
  }

  function gallery(box) {
    const search = box.querySelector("input"), list = box.querySelector(".items");
    const items = texts.prompts.map((prompt, index) => ({ prompt, node: item(prompt, index) }));
    let filter = "all";
    const show = () => {
      const wanted = search.value.trim().toLowerCase(), { keep, by } = FILTERS[filter];
      const found = items.filter(({ prompt }) => keep(prompt) && `${prompt.text} ${prompt.category}`.toLowerCase().includes(wanted));
      if (by) found.sort((a, b) => by(b.prompt) - by(a.prompt));
      list.replaceChildren(...found.map(({ node }) => node));
      box.querySelector(".found").textContent = found.length ? `${found.length} prompt${found.length === 1 ? "" : "s"}` : "No prompt matches.";
    };
    search.addEventListener("input", show);
    for (const button of box.querySelectorAll("[data-filter]")) {
      button.addEventListener("click", () => {
        filter = button.dataset.filter;
        for (const one of box.querySelectorAll("[data-filter]")) one.setAttribute("aria-pressed", String(one === button));
        show();
      });
    }
    show();
  }

  document.querySelectorAll(".dial").forEach(dial);
  if (texts && document.getElementById("gallery")) gallery(document.getElementById("gallery"));
  Report.start();
})();

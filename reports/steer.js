"use strict";
// Asks this machine's server for answers at the slider's balance. Answers only ever go through textContent.
(() => {
  const byId = (id) => document.getElementById(id);
  const form = document.querySelector("form"), slider = byId("harmless"), prompt = byId("prompt"), state = byId("state");
  const PAUSE = 250;  // milliseconds that the slider must rest
  let busy = false, stale = false, timer = 0;

  const say = () => {
    byId("balance").textContent = `${100 - slider.value} % helpful, ${slider.value} % harmless`;
    slider.setAttribute("aria-valuetext", byId("balance").textContent);
  };

  // One question is out at a time; while it is, only the newest of those that came since is kept.
  async function ask() {
    clearTimeout(timer);
    stale = busy;
    if (!prompt.value.trim()) {
      stale = false;
      state.textContent = "Write a question first.";
      return;
    }
    state.textContent = "answering …";
    if (busy) return;
    busy = true;
    try {
      const reply = await fetch("/answer", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ prompt: prompt.value, helpful: (100 - slider.value) / 100 }),
      });
      const found = await reply.json();
      if (stale) return;
      if (!reply.ok) throw new Error(found.error);
      for (const { method, answer, preference } of found) {
        const card = document.querySelector(`.card[data-method="${CSS.escape(method)}"]`);
        card.querySelector(".answer").textContent = answer || "(an empty answer)";
        card.querySelector(".scores").textContent = `offers ${Object.entries(preference).map(([name, weight]) => `${Math.round(100 * weight)} % ${name}`).join(", ")}`;
      }
      state.textContent = "";
    } catch (error) {
      if (!stale) state.textContent = `No answer: ${error.message}`;
    } finally {
      busy = false;
      if (stale) ask();
    }
  }

  slider.addEventListener("input", say);
  slider.addEventListener("change", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  say();
})();

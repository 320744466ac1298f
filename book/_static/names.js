// Names for the theme's and the widget library's controls that have none, or another one than is written on them.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".search-button-field[aria-label]").forEach((button) => button.removeAttribute("aria-label"));
  document.querySelectorAll("nav summary").forEach((summary) => {
    const page = summary.closest("li")?.querySelector("a")?.textContent.trim();
    summary.setAttribute("aria-label", `Pages under ${page ?? "this one"}`);
  });
  // A folded cell says itself what a click does.
  document.querySelectorAll("details > summary[aria-label]").forEach((summary) => {
    if (summary.textContent.trim()) summary.removeAttribute("aria-label");
  });
  // The index of shown code puts the list of what a module holds beside the module's entry, not into it.
  document.querySelectorAll("ul > ul").forEach((inner) => {
    if (inner.previousElementSibling?.tagName === "LI") inner.previousElementSibling.append(inner);
  });
  // What stands in a list are its items; the bibliography's have a role of their own, which is not one of them.
  document.querySelectorAll('.citation-list[role="list"] > *').forEach((entry) => entry.setAttribute("role", "listitem"));
  // What scrolls in itself can be reached with the keyboard, also where it was folded at first.
  // Where it goes on, its edge fades.
  const fade = (box) => {
    box.classList.toggle("more-below", box.scrollTop + box.clientHeight < box.scrollHeight - 4);
    box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 4);
  };
  document.addEventListener("scroll", ({ target }) => target.matches?.(".more-below, .more-right, [tabindex]") && fade(target), true);
  const reach = () =>
    document.querySelectorAll(".bd-article table, .cell_output, .cell_output pre").forEach((box) => {
      if (box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      fade(box);
    });
  reach();
  document.addEventListener("toggle", reach, true);
  ["load", "resize"].forEach((event) => window.addEventListener(event, reach));
  // Paper cannot be unfolded.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll(".bd-article details:not([open])").forEach((each) => each.classList.add("for-print"));
    document.querySelectorAll(".for-print").forEach((each) => (each.open = true));
  });
  window.addEventListener("afterprint", () => {
    document.querySelectorAll(".for-print").forEach((each) => {
      each.open = false;
      each.classList.remove("for-print");
    });
  });
  // Widgets are drawn after the page has loaded.
  const name = () =>
    document.querySelectorAll(".noUi-handle:not([aria-label])").forEach((handle) => {
      const label = handle.closest(".widget-inline-hbox, .jupyter-widgets")?.querySelector(".widget-label")?.textContent;
      handle.setAttribute("aria-label", label?.trim() || "slider");
    });
  if (document.querySelector('script[type*="jupyter.widget"]')) {
    new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  }
});

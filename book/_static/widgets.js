// What the widget library (vendor/html-manager) expects of a page and ours does not have. Runs after require.js, before the library.
{
  // It looks for its icons beside the page, unless told where it lies.
  const folder = new URL("vendor/html-manager", document.currentScript.src).href;
  window.requirejs.config({ paths: { "@jupyter-widgets/html-manager/dist": folder } });
}

// It asks MathJax 2 to typeset its texts, and the pages have MathJax 3. The library draws the widgets in a later listener.
window.addEventListener("load", () => {
  if (window.MathJax) {
    window.MathJax.Hub = {
      Queue: ([, , element]) => window.MathJax.startup?.promise?.then(() => window.MathJax.typesetPromise([element])),
    };
  }
});

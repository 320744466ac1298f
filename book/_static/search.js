// The summary under a search result: the words of the article alone, not the buttons above it.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  Search.htmlToText = (html) => {
    const article = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    article?.querySelectorAll(".headerlink, script, style").forEach((element) => element.remove());
    return article?.textContent.replace(/\s+/g, " ") ?? "";
  };
});

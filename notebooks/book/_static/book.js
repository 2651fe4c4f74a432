// Names that the theme leaves out, for those who hear the page: the sidebar's landmark and its fold buttons.
document.addEventListener("DOMContentLoaded", () => {
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "navigation");
  sidebar?.setAttribute("aria-label", "The book");
  for (const fold of document.querySelectorAll(".bd-links .has-children > details > summary")) {
    fold.setAttribute("aria-label", "Pages of " + fold.closest("li").querySelector("a").textContent.trim());
  }
});

document.addEventListener("DOMContentLoaded", () => {
  // Names that the theme leaves out, for those who hear the page: the sidebar's landmark and its fold buttons.
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "navigation");
  sidebar?.setAttribute("aria-label", "The book");
  for (const fold of document.querySelectorAll(".bd-links .has-children > details > summary")) {
    fold.setAttribute("aria-label", "Pages of " + fold.closest("li").querySelector("a").textContent.trim());
  }

  // What is larger than its box can be scrolled by keyboard; a table says so too.
  const watch = (box, tell) => new ResizeObserver(() => {
    const wide = box.scrollWidth - box.clientWidth > 1, high = box.scrollHeight - box.clientHeight > 1;
    if (wide || high) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
    tell?.(wide, high);
  }).observe(box);
  window.MathJax?.startup?.promise?.then(() => {
    for (const formula of document.querySelectorAll("mjx-container[display]")) watch(formula);
  });
  for (const box of document.querySelectorAll(".frame > div, .pst-scrollable-table-container")) {
    const frame = box.closest(".frame") ?? box;
    const hint = document.createElement("p");
    hint.className = "hint";
    frame.before(hint);
    const shade = () => frame.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 1);
    box.addEventListener("scroll", shade);
    watch(box, (wide, high) => {
      const more = [...(high ? ["rows"] : []), ...(wide ? ["columns"] : [])].join(" and ");
      hint.textContent = more ? `There are more ${more}: scroll the table.` : "";
      shade();
    });
  }

  // The slider shows one of the levels that slider.html holds.
  for (const figure of document.querySelectorAll("figure.levels")) {
    const input = figure.querySelector("input"), stops = figure.querySelectorAll(".stops span");
    const show = () => {
      input.setAttribute("aria-valuetext", stops[input.value].textContent);
      for (const part of figure.querySelectorAll("[data-level]")) {
        part.classList.toggle("shown", part.dataset.level === input.value);
      }
    };
    input.addEventListener("input", show);
    figure.querySelector(".choose").hidden = false;
    show();
  }
});

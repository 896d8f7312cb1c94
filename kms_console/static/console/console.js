// Small conveniences. Every page works without them.
"use strict";

(function () {
  const one = (selector, within) => (within || document).querySelector(selector);

  // "/" goes to the page's search field.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = document.activeElement;
    if (at && (at.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName))) return;
    const search = one("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  // Confirmation pages open over the page they came from. Without script they are pages.
  const dialog = one("#over");
  document.addEventListener("htmx:afterSwap", (event) => {
    if (dialog && event.target === dialog && dialog.children.length) {
      dialog.showModal();
      const first = one("textarea, input:not([type=hidden]), select, button", dialog);
      if (first) first.focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (dialog && (event.target === dialog || event.target.closest("#over [data-close]"))) {
      event.preventDefault();
      dialog.close();
    }
  });
  // What can't be loaded into the dialog is shown as the page it is.
  document.addEventListener("htmx:responseError", (event) => {
    const link = event.detail.elt;
    if (link && link.href) window.location.assign(link.href);
  });

  // Copy what can be seen only once.
  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = one(button.dataset.copy);
      await navigator.clipboard.writeText(source.textContent.trim());
      button.lastChild.textContent = " Copied";
    });
  }

  // Choose every box of a form at once.
  const offerChoice = () => {
    for (const button of document.querySelectorAll("[data-choose]")) button.hidden = false;
  };
  offerChoice();
  document.addEventListener("htmx:afterSettle", offerChoice);
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-choose]");
    if (!button) return;
    const boxes = [...document.querySelectorAll(button.dataset.choose + " input[type=checkbox]")];
    const all = boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = !all;
  });

  // Set-up: room for another officer.
  const more = one("[data-more]");
  if (more) {
    more.addEventListener("click", (event) => {
      event.preventDefault();
      const rows = document.querySelectorAll(".person.officer");
      const next = rows.length + 1;
      if (next > 16) return;
      const row = rows[rows.length - 1].cloneNode(true);
      const text = (value) => value.replace(/officer_\d+/g, "officer_" + next);
      for (const node of row.querySelectorAll("[name], [id], [for], [aria-describedby]")) {
        for (const name of ["name", "id", "for", "aria-describedby"]) {
          if (node.hasAttribute(name)) node.setAttribute(name, text(node.getAttribute(name)));
        }
        if ("value" in node) node.value = "";
      }
      for (const errors of row.querySelectorAll(".errors")) errors.remove();
      one(".label", row).textContent = "Officer " + next;
      rows[rows.length - 1].after(row);
      one("[name=officers]").value = next;
      one("input", row).focus();
    });
  }

  // A form that was sent is not sent twice.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    // What is downloaded leaves the page as it is, and may be asked for again at once.
    if (form.method !== "post" || event.defaultPrevented || "again" in form.dataset) return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    window.setTimeout(() => delete form.dataset.sent, 4000);
  });
})();

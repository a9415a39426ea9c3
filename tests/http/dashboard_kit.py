"""What a page of the dashboard must be like, as scripts that a browser evaluates. Each returns a list of problems."""

from __future__ import annotations

LAYOUT = """() => {
  const found = [];
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) found.push(`${page.scrollWidth} pixels wide`);
  for (const each of document.querySelectorAll(".money, .id:not(.whole), .clip, .nowrap")) {
    if (getComputedStyle(each).whiteSpace !== "nowrap") found.push(`may wrap: ${each.textContent}`);
    const lines = new Set([...each.getClientRects()].map((box) => Math.round(box.top)));
    if (lines.size > 1) found.push(`in ${lines.size} lines: ${each.textContent}`);
  }
  for (const each of document.querySelectorAll(".chart span")) {
    if (getComputedStyle(each).fontSize !== "12px") found.push(`${each.textContent} of another size`);
  }
  return found;
}"""
"""Whether it fits into the window, and amounts, ids and order numbers stay in one line."""

AUDIT = """() => {
  const found = [], ids = new Set();
  const named = (each) => each.textContent.trim() || each.getAttribute("aria-label") || each.title;
  for (const each of document.querySelectorAll("[id]")) {
    if (ids.has(each.id)) found.push(`twice: #${each.id}`);
    ids.add(each.id);
  }
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const each of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of each.getAttribute(attribute).split(" ")) if (!ids.has(id)) found.push(`no #${id}`);
    }
  }
  for (const each of document.querySelectorAll("a, button")) if (!named(each)) found.push(`no name: ${each.outerHTML}`);
  for (const each of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!each.labels.length) found.push(`no label: ${each.outerHTML}`);
  }
  for (const each of document.querySelectorAll("svg:not([aria-hidden])")) {
    if (!each.getAttribute("aria-label")) found.push("a picture without a text");
  }
  for (const each of document.querySelectorAll("table")) if (!each.caption) found.push("a table without a caption");
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((each) => Number(each.tagName[1]));
  if (levels.filter((each) => each === 1).length !== 1) found.push(`${levels}: not one h1`);
  levels.forEach((each, at) => {
    if (at && each > levels[at - 1] + 1) found.push(`h${each} after h${levels[at - 1]}`);
  });

  const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => {
    const straight = (each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts(colour).map((each) => straight(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), each = walk.currentNode.parentElement;
    if (!text || !each.checkVisibility() || each.closest("option")) continue;
    const [one, other] = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(1)}: ${text}`);
  }
  return found;
}"""
"""Names and labels for a screen reader, ids, headings, and the contrast of every visible text (WCAG 2.2: 4.5)."""

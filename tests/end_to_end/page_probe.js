// Runs in a page in a test, when its charts are drawn, and leaves what it measured as JSON in the attribute
// data-probe of <html>.
addEventListener("load", () => setTimeout(() => {
  const parse = (colour) => {
    const numbers = (colour.match(/-?[0-9.]+(e-?[0-9]+)?/g) || []).map(Number);
    const scale = colour.startsWith("color(") ? 1 : 255;
    return [...numbers.slice(0, 3).map((each) => each / scale), numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
  const ground = (element) => {
    if (!element) return [1, 1, 1, 1];
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour : over(colour, ground(element.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element) => {
    const below = ground(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const details = [...document.querySelectorAll("details")];
  const plots = [...document.querySelectorAll(".plot")];
  const paper = () => getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
  const closed = () => details.filter((each) => !each.open).length;

  const found = {
    width: innerWidth,
    scrollWidth: document.documentElement.scrollWidth,
    isDark: matchMedia("(prefers-color-scheme: dark)").matches,
    numPlots: plots.length,
    numDrawn: plots.filter((each) => each.querySelector(".main-svg path")).length,
    numClosed: closed(),
  };

  details.forEach((each) => (each.open = true));
  const words = [...document.querySelectorAll("p, th, td, a, h1, h2, h3, figcaption, summary, li, dt, dd, pre, .badge, .label, .value, .more")];
  const ratios = words
    .filter((each) => each.textContent.trim() && each.getClientRects().length)
    .map((each) => [contrast(each), `${each.tagName}.${each.className}: ${each.textContent.trim().slice(0, 40)}`]);
  found.weakest = ratios.sort((a, b) => a[0] - b[0])[0];
  const head = document.querySelector(".sortable th");
  head.focus({ preventScroll: true });
  found.isFocused = document.activeElement === head;
  found.sorts = ["Enter", " "].map((key) => {
    head.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    return head.getAttribute("aria-sort");
  });
  details.forEach((each) => (each.open = false));

  dispatchEvent(new Event("beforeprint"));
  found.printed = {
    paper: paper(),
    numClosed: closed(),
    widest: Math.max(...plots.map((each) => each.querySelector(".main-svg").getBoundingClientRect().width)),
  };
  dispatchEvent(new Event("afterprint"));
  found.after = { paper: paper(), numClosed: closed() };
  document.documentElement.dataset.probe = JSON.stringify(found);
}, 500));

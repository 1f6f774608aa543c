/** True if a name fits a pattern, in which `*` stands for any characters, none included. */
export function fits(pattern: string, name: string): boolean {
  const [first = "", ...rest] = pattern.split("*");
  if (rest.length === 0) return name === pattern;
  const last = rest.pop() as string;
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length)
    return false;
  // The text between two stars is taken where it comes first, which leaves most for the others.
  let from = first.length;
  for (const part of rest) {
    const at = name.indexOf(part, from);
    if (at < 0) return false;
    from = at + part.length;
  }
  return from <= name.length - last.length;
}

/** Whether a pattern fits all names that begin so, perhaps some of them, or none. */
export function fitsBeginning(pattern: string, beginning: string): "all" | "some" | "none" {
  const [head = "", ...rest] = pattern.split("*");
  if (rest.length === 0) return pattern.startsWith(beginning) ? "some" : "none";
  if (rest.every((part) => part === "") && beginning.startsWith(head)) return "all";
  return head.startsWith(beginning) || beginning.startsWith(head) ? "some" : "none";
}

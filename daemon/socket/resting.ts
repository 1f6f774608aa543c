/** Connections that go on in one round of the event loop. */
const MOST_PER_ROUND = 8;

/** What lets connections be read again that have sent much, in the order in which they did. */
const waiting: (() => void)[] = [];
let isScheduled = false;

/**
 * Calls this in one of the next rounds of the event loop, after a turn and after what others have sent: in each, a few
 * of those that wait go on, however many do.
 */
export function afterRest(goOn: () => void): void {
  waiting.push(goOn);
  schedule();
}

function schedule(): void {
  if (isScheduled) return;
  isScheduled = true;
  setImmediate(nextRound);
}

function nextRound(): void {
  isScheduled = false;
  for (const goOn of waiting.splice(0, MOST_PER_ROUND)) goOn();
  if (waiting.length > 0) schedule();
}

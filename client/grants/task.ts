import { AsyncLocalStorage } from "node:async_hooks";

/** The task of the outermost function that runs while something is held. */
const taskNow = new AsyncLocalStorage<string>();
let tasks = 0;

/** The task that a function holds and waits under: that of the one it runs in, or one of its own. */
export function taskOf(given: string | undefined): string {
  return given ?? taskNow.getStore() ?? `${process.pid}-${++tasks}`;
}

/** Runs a function under a task, which all that it holds and waits for belongs to. */
export function underTask<T>(task: string, perform: () => T): T {
  return taskNow.run(task, perform);
}

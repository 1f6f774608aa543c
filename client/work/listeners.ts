import { textOfThrown } from "./thrown.js";

/** Calls a listener of the application. Its errors are for the application to see, and end nothing here. */
export function callListener<A extends unknown[]>(listener: (...args: A) => void, ...args: A): void {
  try {
    listener(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Shows trouble that the application has no listener for, and ends nothing. */
export function warn(error: unknown): void {
  process.emitWarning(textOfThrown(error), "PawlWarning");
}

// How the application is told.

/** Calls a listener of the application. An error of the listener is for the application to see, and ends nothing here. */
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
  process.emitWarning(error instanceof Error ? error.message : String(error), "PawlWarning");
}

/** Exit codes of `pawl` (spec: operations.md). A command that runs another program may exit with that one's. */
export const EXIT_DONE = 0;
export const EXIT_REFUSED = 1;
export const EXIT_USAGE = 2;
export const EXIT_NO_DAEMON = 3;
export const EXIT_TROUBLE = 4;

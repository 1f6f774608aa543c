/** What is kept is not what was stored: an error of the call that asks for it, and no defect of the program. */
export class Damaged extends Error {
  /** @param what is damaged: the beginning of the sentence that callers are told. */
  constructor(what: string, why: string) {
    super(`${what} is damaged in the database: ${why}.`);
  }
}

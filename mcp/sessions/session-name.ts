/** Names of sessions are leases below this. */
export const SESSION_LEASES = "session/";

// A worker in C: cc -o worker worker.c && ./worker SOCKET QUEUE COMMAND...
// Claims one batch after the other and runs COMMAND with the daemon's answer as its input. Renews the claim meanwhile;
// completes it on exit code 0, gives it back otherwise; kills COMMAND with all that it started when the claim is lost.
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static char ask[512], proof[512], failure[600], reply[1 << 26];  // An answer is never longer than that.
static double lease_ms, until;                                   // How long the claim lasts; 0 while there is none.
static pid_t job;
static void stop(int code) { _exit(job > 0 && kill(-job, SIGKILL) ? 1 : code); }
static double now(void) { struct timespec t; return clock_gettime(CLOCK_MONOTONIC, &t), t.tv_sec + t.tv_nsec / 1e9; }

// Asks until there is an answer in `reply`: a claim outlives a restart of the daemon. Returns 0 when it is lost.
static int call(const char *method, const char *params) {
  for (double told = 0, left; (left = until ? until - now() : 90) > 0; told = 1, usleep(200000)) {
    struct timeval patience = {left, (left - (long)left) * 999990 + 1};
    FILE *daemon = fdopen(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "r");  // Not for COMMAND to keep open.
    setsockopt(fileno(daemon), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    connect(fileno(daemon), (void *)&address, sizeof address);
    dprintf(fileno(daemon), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s}}\n", method, params);
    *reply = 0, fgets(reply, sizeof reply, daemon), fclose(daemon);
    if (strstr(reply, "\"result\":")) return until = now() + lease_ms / 1e3, 1;
    if (strstr(reply, "\"kind\":\"claim_lost\"")) return 0;
    if (*reply && !strstr(reply, "\"retryable\":true")) warnx("%s", reply), stop(1);
    if (!told) warnx("No daemon answers on %s, or it cannot now. Asking again.", address.sun_path);
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 4) errx(2, "usage: worker SOCKET QUEUE COMMAND...");
  lease_ms = atof(getenv("LEASE_MS") ? getenv("LEASE_MS") : "30000");
  strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  snprintf(ask, sizeof ask, "\"queue\":\"%s\",\"owner\":\"worker\",\"leaseMs\":%.f,\"waitMs\":60000", argv[2], lease_ms);
  for (signal(SIGTERM, stop), signal(SIGINT, stop), signal(SIGPIPE, SIG_IGN);; until = 0) {
    int status, held = call("queue.claim", ask);
    char *found = strstr(reply, "\"claimId\":");
    if (!found) continue;
    snprintf(proof, sizeof proof, "%.*s", (int)(strstr(found, ",\"fencingToken\":") - found), found);
    FILE *input = tmpfile();
    fputs(reply, input), rewind(input);
    if ((job = fork()) == 0)
      setpgid(0, 0), dup2(fileno(input), 0), signal(SIGPIPE, SIG_DFL), execvp(argv[3], argv + 3), _exit(127);
    setpgid(job, job), fclose(input);
    for (; waitpid(job, &status, held ? WNOHANG : 0) == 0; usleep(20000))
      if (now() > until - lease_ms / 1.5e3 && !(held = call("queue.renew", proof))) kill(-job, SIGKILL);
    job = until = 0, snprintf(failure, sizeof failure, "%s,\"error\":\"status %d\"", proof, status);
    held = held && (status == 0 ? call("queue.complete", proof) : call("queue.abandon", failure));
    puts(!held ? "lost" : status == 0 ? "completed" : "abandoned"), fflush(stdout);
  }
}

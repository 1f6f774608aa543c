// A worker in C: cc -o worker worker.c && ./worker SOCKET QUEUE COMMAND...
// Claims one batch after the other and runs COMMAND with the daemon's answer, which holds the claim, on its standard
// input. Renews the claim while COMMAND runs, completes it on exit code 0, gives it back otherwise, and stops
// COMMAND when the claim is lost.
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int daemon_fd;
static FILE *lines;
static char *reply;
static size_t size;

// Calls a method and leaves the answer in `reply`. Returns 0 when the claim is lost; ends on other trouble.
static int call(const char *method, const char *params) {
  dprintf(daemon_fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s}}\n", method, params);
  if (getline(&reply, &size, lines) < 0) errx(1, "The daemon is gone.");
  if (strstr(reply, "\"result\":")) return 1;
  if (!strstr(reply, "\"kind\":\"claim_lost\"")) errx(1, "%s", reply);
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 4) errx(2, "usage: worker SOCKET QUEUE COMMAND...");
  long lease_ms = getenv("LEASE_MS") ? atol(getenv("LEASE_MS")) : 30000;
  struct timespec third = {lease_ms / 3000, lease_ms / 3 % 1000 * 1000000};
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  daemon_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);  // The command must not keep it open when we are dead.
  if (connect(daemon_fd, (void *)&address, sizeof address)) err(1, "%s", argv[1]);
  lines = fdopen(daemon_fd, "r");
  sigset_t child;
  sigemptyset(&child), sigaddset(&child, SIGCHLD), sigprocmask(SIG_BLOCK, &child, NULL);
  for (char ask[512], proof[512], more[600], id[128], token[256];;) {
    snprintf(ask, sizeof ask, "\"queue\":\"%s\",\"owner\":\"worker.c\",\"leaseMs\":%ld,\"waitMs\":60000", argv[2], lease_ms);
    call("queue.claim", ask);
    char *found = strstr(reply, "\"claimId\":"), *secret = strstr(reply, "\"leaseToken\":");
    if (!found || sscanf(found, "\"claimId\":\"%127[^\"]", id) + sscanf(secret, "\"leaseToken\":\"%255[^\"]", token) < 2) continue;
    snprintf(proof, sizeof proof, "\"claimId\":\"%s\",\"leaseToken\":\"%s\"", id, token);
    FILE *input = tmpfile();
    fputs(reply, input), rewind(input);
    pid_t job = fork();
    if (job == 0) dup2(fileno(input), 0), sigprocmask(SIG_UNBLOCK, &child, NULL), execvp(argv[3], argv + 3), _exit(127);
    fclose(input);
    int status, held = 1;
    for (snprintf(more, sizeof more, "%s,\"leaseMs\":%ld", proof, lease_ms); waitpid(job, &status, WNOHANG) == 0;)
      if (sigtimedwait(&child, NULL, &third) < 0 && held && !(held = call("queue.renew", more))) kill(job, SIGKILL);
    snprintf(more, sizeof more, "%s,\"error\":\"status %d\"", proof, status);
    held = held && (status == 0 ? call("queue.complete", proof) : call("queue.abandon", more));
    puts(!held ? "lost" : status == 0 ? "completed" : "abandoned"), fflush(stdout);
  }
}

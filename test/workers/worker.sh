#!/usr/bin/env bash
# A worker in bash, with socat.
#
#   worker.sh SOCKET QUEUE COMMAND...
#
# Claims one batch after the other and runs COMMAND with the daemon's answer, which holds the claim, on its standard
# input. Renews the claim while COMMAND runs, completes it on exit code 0, gives it back otherwise, and stops COMMAND
# when the claim is lost.
socket=$1 queue=$2
shift 2
lease_ms=${LEASE_MS:-30000}
third=$(printf '%d.%03d' $((lease_ms / 3000)) $((lease_ms / 3 % 1000)))
coproc DAEMON { exec socat - "UNIX-CONNECT:$socket"; }

# call METHOD PARAMS: leaves the answer in $reply. Fails when the claim is lost; ends the worker on other trouble.
call() {
  printf '{"jsonrpc":"2.0","id":1,"method":"%s","params":{%s}}\n' "$1" "$2" >&"${DAEMON[1]}"
  IFS= read -r reply <&"${DAEMON[0]}" || { echo "The daemon is gone." >&2; exit 1; }
  [[ $reply == *'"result":'* ]] && return 0
  [[ $reply == *'"kind":"claim_lost"'* ]] && return 1
  echo "$reply" >&2
  exit 1
}

while true; do
  call queue.claim "\"queue\":\"$queue\",\"owner\":\"worker.sh\",\"leaseMs\":$lease_ms,\"waitMs\":60000"
  # The first of each name is the claim's own; payloads come after them.
  [[ $reply =~ \"claimId\":\"([^\"]+)\" ]] || continue
  proof="\"claimId\":\"${BASH_REMATCH[1]}\""
  [[ $reply =~ \"leaseToken\":\"([^\"]+)\" ]]
  proof+=",\"leaseToken\":\"${BASH_REMATCH[1]}\""

  "$@" <<<"$reply" &
  job=$!
  # Ends when the job does, and lets `read` wait for that and for the time to renew at once.
  exec {ended}< <(exec tail -s 0.1 --pid="$job" -f /dev/null)
  while IFS= read -r -t "$third" -u "$ended" _; (($? > 128)); do
    call queue.renew "$proof,\"leaseMs\":$lease_ms" || kill "$job" # Another may be doing the same work by now.
  done
  exec {ended}<&-
  wait "$job"
  code=$?
  if ((code == 0)); then
    call queue.complete "$proof" && echo completed || echo lost
  else
    call queue.abandon "$proof,\"error\":\"exit code $code\"" && echo abandoned || echo lost
  fi
done

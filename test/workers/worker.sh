#!/usr/bin/env bash
# A worker in bash, with socat: worker.sh SOCKET QUEUE COMMAND...
#
# Claims one batch after the other and runs COMMAND with the daemon's answer, which holds the claim, on its standard
# input. Renews the claim while COMMAND runs, completes it on exit code 0, gives it back otherwise. Kills COMMAND with
# all that it started when the claim is lost. Claims outlive a restart of the daemon, so whoever does not answer is
# asked again.
socket=$1 queue=$2
shift 2
lease_ms=${LEASE_MS:-30000} forever=$((2 ** 62)) job='' asking=''
trap 'kill_job; [[ $asking ]] && kill "$asking"' EXIT

kill_job() { [[ $job ]] && kill -KILL -- "-$job" 2>/dev/null; }
now() { ms=$((${EPOCHREALTIME/[.,]/} / 1000)); }
seconds() { printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }

# call METHOD PARAMS UNTIL: leaves the answer in $reply. Fails when the claim is lost: the daemon says so, or does not
# answer until it has expired. Ends the worker on other trouble. Each try is a connection of its own.
call() {
  local told='' left
  while now && left=$(($3 - ms)) && ((left > 0)); do
    exec {answer}< <(exec socat -t 90 - "UNIX-CONNECT:$socket" 2>/dev/null \
      <<<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"$1\",\"params\":{$2}}")
    asking=$!
    IFS= read -r -t "$(seconds $((left < 90000 ? left : 90000)))" -u "$answer" reply
    exec {answer}<&-
    kill "$asking" 2>/dev/null
    asking=''
    [[ $reply == *'"result":'* ]] && return 0
    [[ $reply == *'"kind":"claim_lost"'* ]] && return 1
    [[ $reply && $reply != *'"retryable":true'* ]] && echo "$reply" >&2 && exit 1
    [[ $told ]] || echo "No daemon answers on $socket, or it cannot now. Asking again." >&2
    told=1
    sleep 0.2
  done
  return 1
}

while true; do
  call queue.claim "\"queue\":\"$queue\",\"owner\":\"worker.sh\",\"leaseMs\":$lease_ms,\"waitMs\":60000" "$forever"
  [[ $reply =~ '"claimId":"'[^\"]+'","leaseToken":"'[^\"]+'"' ]] || continue
  proof=${BASH_REMATCH[0]} held=1 outcome=lost
  now && until=$((ms + lease_ms))
  setsid "$@" <<<"$reply" &
  job=$!
  # Ends when the job does, and lets `read` wait for that and for the time to renew at once.
  exec {ended}< <(exec tail -s 0.1 --pid="$job" -f /dev/null)
  while IFS= read -r -t "$(seconds $((lease_ms / 3)))" -u "$ended" _; (($? > 128)) && now; do
    renewed=$ms
    call queue.renew "$proof,\"leaseMs\":$lease_ms" "$until" || { held='' && kill_job; break; }
    until=$((renewed + lease_ms))
  done
  exec {ended}<&-
  { wait "$job"; } 2>/dev/null
  code=$? job=''
  [[ $held ]] && ((code == 0)) && call queue.complete "$proof" "$forever" && outcome=completed
  [[ $held ]] && ((code != 0)) && call queue.abandon "$proof,\"error\":\"exit code $code\"" "$forever" && outcome=abandoned
  echo "$outcome"
done

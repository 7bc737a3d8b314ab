# Starts Redis servers and Sentinels on free loopback ports, for scripts/demo and scripts/bench. Source it, call
# deployment_start REPLICAS SENTINELS, also more than once; it sets uri, primary_port, primary_pid, replica_ports. Everything ends
# with the shell that sourced it.
# Needs redis-server and bash alone: servers are spoken to over bash's own /dev/tcp.

deployment_dir=
deployment_number=0
deployment_pids=()

deployment_stop() {
  trap - EXIT
  trap '' INT TERM HUP # make passes on what it gets: a second signal must not end this half way
  if [ ${#deployment_pids[@]} -gt 0 ]; then
    kill -KILL "${deployment_pids[@]}" 2>/dev/null || true
    { wait "${deployment_pids[@]}"; } 2>/dev/null || true
  fi
  # A server's own child, which saves or feeds a replica, may still write there for a moment.
  local tries=0
  if [ -n "$deployment_dir" ]; then
    until rm -rf "$deployment_dir" 2>/dev/null || ((++tries == 100)); do sleep 0.05; done
  fi
}
trap deployment_stop EXIT
trap 'deployment_stop; exit 130' INT
trap 'deployment_stop; exit 143' TERM HUP

# ask PORT COMMAND: the raw answer of a server, line by line; false if there is none. The answer to the PING behind it is the
# sign that it is whole.
ask() {
  local line status=1
  { exec 9<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
  printf '%s\r\nPING\r\n' "$2" >&9
  while IFS= read -r -t 2 line <&9; do
    line=${line%$'\r'}
    if [ "$line" = +PONG ]; then
      status=0
      break
    fi
    printf '%s\n' "$line"
  done
  exec 9>&-
  return "$status"
}

# until_true SECONDS WHAT COMMAND...: waits for the command to succeed.
until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "waited in vain for $what; the logs:" >&2
      tail -n 5 "$deployment_dir"/*.log >&2
      return 1
    fi
    sleep 0.05
  done
}
says() { ask "$1" "$2" | grep -- "$3" >/dev/null; }

# server_start NAME ARGUMENT...: a server on a free port; sets port and pid. A port taken by somebody in the meantime ends the
# server at once, and the next one is tried.
server_start() {
  local name=$deployment_number-$1 try
  shift
  for try in 1 2 3 4 5 6 7 8 9 10; do
    port=$((RANDOM % 20000 + 10000))
    if ask "$port" "" >/dev/null; then continue; fi
    printf 'port %s\nbind 127.0.0.1\ndir %s\n' "$port" "$deployment_dir" >"$deployment_dir/$name.conf"
    printf '%s\n' "$@" >>"$deployment_dir/$name.conf"
    redis-server "$deployment_dir/$name.conf" ${sentinel_flag:-} >"$deployment_dir/$name.log" 2>&1 &
    pid=$!
    deployment_pids+=("$pid")
    if until_true 5 "$name to answer" server_settled && kill -0 "$pid" 2>/dev/null; then return; fi
    unset 'deployment_pids[-1]'
  done
  echo "no free port for $name in $try tries" >&2
  return 1
}
server_settled() { ! kill -0 "$pid" 2>/dev/null || ask "$port" "" >/dev/null; }

deployment_start() {
  local replicas=$1 sentinels=$2 quorum=$(($2 / 2 + 1)) n ports=() addrs=
  # The names of a deployment's files begin with its number: Sentinels write theirs anew while they run.
  deployment_number=$((deployment_number + 1))
  [ -n "$deployment_dir" ] || deployment_dir=$(mktemp -d "${TMPDIR:-/tmp}/vigie.XXXXXX")
  replica_ports=()
  server_start primary 'save ""' 'repl-diskless-sync-delay 0'
  primary_port=$port primary_pid=$pid
  for ((n = 1; n <= replicas; n++)); do
    server_start "replica$n" 'save ""' 'repl-diskless-sync-delay 0' "replicaof 127.0.0.1 $primary_port"
    replica_ports+=("$port")
  done
  if [ "$replicas" -gt 0 ]; then
    until_true 20 "the replicas" says "$primary_port" 'INFO replication' "^slave$((replicas - 1)):.*state=online"
  fi
  for ((n = 1; n <= sentinels; n++)); do
    sentinel_flag=--sentinel server_start "sentinel$n" \
      "sentinel monitor mymaster 127.0.0.1 $primary_port $quorum" \
      'sentinel down-after-milliseconds mymaster 1000' \
      'sentinel failover-timeout mymaster 6000'
    ports+=("$port")
    addrs+=${addrs:+,}127.0.0.1:$port
  done
  for port in "${ports[@]}"; do
    until_true 20 "Sentinel $port to know all" sentinel_ready "$port" "$replicas" "$((sentinels - 1))"
  done
  uri=redis-sentinel://$addrs/mymaster
}
# The flat answer has a name and its value on every other line.
sentinel_ready() {
  [ "$(ask "$1" 'SENTINEL MASTER mymaster' |
    awk '/^num-slaves$/ {getline; getline; s = $0} /^num-other-sentinels$/ {getline; getline; o = $0} END {print s "/" o}')" = "$2/$3" ]
}

#!/bin/bash
# A job of CI under guard-run, step by step: install, run, report, finish. action.yml and templates/gitlab.yml call it.
#
# GUARD_COMMAND        what to run, as a script for bash
# GUARD_POLICY         the policy, a file or a name
# GUARD_ARGUMENTS      further options of guard-run, divided by blanks
# GUARD_FAIL_ON_DENY   "true": a denial fails the job, also if the command succeeds, and the test case that it belongs to
# GUARD_JUNIT          results of tests, as patterns of files divided by blanks: denials are put into a copy of them
# GUARD_FOLDER         where log and reports go
# GUARD_PROGRAM        guard-run, where it is not in PATH
# GUARD_PACKAGE        the URL of a Debian package, where guard-run is to be installed
# GUARD_SHA256         that package's sum; unless given, SHA256SUMS beside it is asked
set -euo pipefail

folder=${GUARD_FOLDER:-${RUNNER_TEMP:-${CI_PROJECT_DIR:-.}}/guard-run}
program=${GUARD_PROGRAM:-guard-run}
log=$folder/log.json

fail() {
    echo "guard-run: $*" >&2
    exit 1
}

warn() {
    echo "guard-run: $*" >&2
    [ "${GITHUB_ACTIONS:-}" != true ] || printf '::warning title=guard-run::%s\n' "${*//%/%25}"
}

# as_root COMMAND...: runs it as root, by sudo(8) where this is another user.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

fetch() {
    curl --fail --silent --show-error --location --proto '=https,file' --output "$2" "$1"
}

# Installs the package, unless guard-run is there.
install() {
    mkdir -p "$folder"
    if ! command -v "$program" >/dev/null; then
        [ -n "${GUARD_PACKAGE:-}" ] || fail "$program is not there, and GUARD_PACKAGE doesn't say where its Debian package is"
        local file=${GUARD_PACKAGE##*/}
        fetch "$GUARD_PACKAGE" "$folder/$file"
        local sum=${GUARD_SHA256:-}
        if [ -z "$sum" ]; then
            fetch "${GUARD_PACKAGE%/*}/SHA256SUMS" "$folder/SHA256SUMS"
            sum=$(awk -v file="$file" '$2 == file || $2 == "*" file { print $1 }' "$folder/SHA256SUMS")
        fi
        [ -n "$sum" ] || fail "$GUARD_PACKAGE: no sum is known of it; give GUARD_SHA256"
        echo "$sum  $folder/$file" | sha256sum --check --quiet || fail "$GUARD_PACKAGE is not the package that is meant"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y "$(realpath "$folder/$file")"
    fi
    "$program" --version
}

# Runs the command. How it ended is kept for finish, so that the report is written before the job fails. Fails only where the command did
# not run under guard-run, as without its policy.
run() {
    mkdir -p "$folder"
    rm -f "$log" "$folder/status" "$folder/unreported"
    local status=0 options=(--policy "${GUARD_POLICY:-ci}" --log "$log" --flows) more=() command=(bash -euo pipefail -c "$GUARD_COMMAND")
    [ "${GUARD_FAIL_ON_DENY:-true}" != true ] || options+=(--fail-on-deny)
    read -ra more <<<"${GUARD_ARGUMENTS:-}"
    if [ "$(id -u)" = 0 ]; then
        "$program" "${options[@]}" "${more[@]}" -- "${command[@]}" || status=$?
    else
        # The command is the user's, with the user's environment: sudo has a PATH and a HOME of its own.
        sudo -n --preserve-env "$(command -v "$program")" "${options[@]}" --user "$(id -un)" "${more[@]}" -- \
            env "PATH=$PATH" "HOME=$HOME" "${command[@]}" || status=$?
        [ ! -e "$log" ] || sudo -n chown "$(id -u):$(id -g)" "$log"
    fi
    echo "$status" >"$folder/status"
    if [ -n "${GITHUB_OUTPUT:-}" ]; then
        printf '%s\n' "status=$status" "folder=$folder" "log=$log" >>"$GITHUB_OUTPUT"
    fi
    if [ ! -s "$log" ]; then
        echo "guard-run: the command did not run under guard-run, which ended with $status and left no log" >&2
        exit $((status ? status : 1))
    fi
}

# Writes the reports: what the forge shows, and files to keep. Until all are written, a file says so to finish.
report() {
    mkdir -p "$folder"
    : >"$folder/unreported"
    [ -s "$log" ] || fail "there is no log: the command did not run under guard-run"
    local forge=() results=() patterns=() pattern file
    [ -z "${GITHUB_STEP_SUMMARY:-}" ] || forge+=(--github)
    [ "${GITLAB_CI:-}" != true ] || forge+=("--gitlab=$folder/gl-code-quality-report.json")
    "$program" report "${forge[@]}" "$log"
    "$program" report -f html -o "$folder/report.html" "$log"
    "$program" report -f sarif -o "$folder/report.sarif" "$log"
    read -ra patterns <<<"${GUARD_JUNIT:-}"
    for pattern in "${patterns[@]}"; do
        for file in $pattern; do
            # A command that failed early has left none.
            if [ -e "$file" ]; then results+=(--junit "$file"); else warn "$file: there are no such results of tests"; fi
        done
    done
    # Where a denial is no failure, as in a test that expects it, results stay as they are.
    [ "${#results[@]}" = 0 ] || [ "${GUARD_FAIL_ON_DENY:-true}" = true ] || results+=(--keep-results)
    "$program" report -f junit "${results[@]}" -o "$folder/junit.xml" "$log"
    rm -f "$folder/unreported"
}

# Ends as the command did; says first what would allow what was denied.
finish() {
    local status
    [ -s "$folder/status" ] || fail "the command was not run"
    status=$(cat "$folder/status")
    if [ "$status" != 0 ] && [ -s "$log" ]; then
        "$program" suggest "$log" || true
    fi
    if [ "$status" = 0 ] && [ -e "$folder/unreported" ]; then
        fail "the command succeeded, but its reports could not be written"
    fi
    exit "$status"
}

case ${1:-} in
install | run | report | finish) "$1" ;;
*) fail "say what to do: install, run, report or finish" ;;
esac

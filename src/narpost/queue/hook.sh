#!/bin/sh
# narpost's post-build-hook: queues what Nix has just built, and never fails or delays a build.
# One ln makes all entries; each is a link below gcroots, which also keeps its path from
# garbage collection. No daemon needs to run.

queue=@queue@
ln=@ln@
nix_store=@nix_store@

trap "" PIPE # nobody may be left to hear of a failure
set -f       # a path is never a pattern
IFS=' '      # OUT_PATHS is separated by spaces, and by nothing else

if [ -z "$OUT_PATHS" ] && [ -n "$DRV_PATH" ]; then
    # Nix 2.8.0 leaves OUT_PATHS empty (nix#6446), and a root on the derivation alone does not
    # keep its outputs: so ask for them.
    IFS='
'
    OUT_PATHS=$("$nix_store" --query --outputs "$DRV_PATH" 2>/dev/null)
fi

# shellcheck disable=SC2086 # split on purpose
set -- $DRV_PATH $OUT_PATHS
IFS=' '

if [ $# -gt 0 ] && ! "$ln" -sf -- "$@" "$queue/" 2>/dev/null; then
    echo "narpost: could not queue $* in $queue; when that folder can be written: narpost push $*" >&2
fi
exit 0

#!/bin/sh
# What mpirun runs in place of ssh under links.sh: links_agent.sh ADDRESS COMMAND..., the address
# ending in the host's number. Starts the command in that host's network namespace, with the host's
# own name and folder for temporary files. links.sh sets LINKS_NAME and LINKS_FOLDER.
number=${1##*.}
shift
export TMPDIR="$LINKS_FOLDER/host$number"
exec ip netns exec "$LINKS_NAME-host$number" unshare --uts sh -c "hostname host$number; $*"

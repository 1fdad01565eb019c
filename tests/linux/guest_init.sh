#!/bin/busybox sh
# The first process of a test guest. It loads the modules in the order of /lib/modules/order, and then runs the
# commands that come over the second serial port, one per line as "NUMBER COMMAND"; output goes back, and then
# "@@NUMBER STATUS".
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
while read -r module parameters; do
  # shellcheck disable=SC2086 # several words
  insmod "/lib/modules/$module.ko" $parameters || echo "init: module $module was refused"
done </lib/modules/order
# The model cannot wake a controller that was suspended while nothing was plugged: it has no PME.
for control in /sys/bus/pci/drivers/thunderbolt/*/power/control; do
  if [ -e "$control" ]; then echo on >"$control"; fi
done
mount -t configfs configfs /sys/kernel/config 2>/dev/null
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
echo "@@0 0"
while read -r number command; do
  (eval "$command") </dev/null
  echo "@@$number $?"
done
poweroff -f

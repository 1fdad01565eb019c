// libtbt.so, loaded when the first device list is asked for and not before: a program that merely
// links libibverbs must not pay for us, nor fail because of us.
#pragma once

#include <string>
#include <vector>

#include "tbt/device.h"

namespace tbt::provider {

struct TransportLibrary {
  Result<std::vector<DeviceInfo>> (*list_devices)();
  Result<Context*> (*open)(const std::string& name, AsyncSink* sink);
};

// nullptr if libtbt is not installed beside this library or nowhere in the loader's path.
const TransportLibrary* transport_library() noexcept;

}  // namespace tbt::provider

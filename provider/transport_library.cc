#include "transport_library.h"

#include <dlfcn.h>

#include <climits>
#include <cstring>
#include <mutex>

namespace tbt::provider {
namespace {

// The two static functions of tbt::Context, as the Itanium C++ ABI names them. The tests check that
// libtbt has them.
constexpr char kListDevices[] = "_ZN3tbt7Context12list_devicesEv";
constexpr char kOpen[] =
    "_ZN3tbt7Context4openERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEPNS_9AsyncSinkE";
constexpr char kSoname[] = "libtbt.so.0";

// The file beside ours wins over the loader's path, so that a build folder or an installation is
// used as a whole.
void* open_beside_us() noexcept {
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&transport_library), &self) == 0) return nullptr;
  const char* slash = std::strrchr(self.dli_fname, '/');
  if (slash == nullptr) return nullptr;
  const auto directory = static_cast<size_t>(slash - self.dli_fname) + 1;
  char path[PATH_MAX];
  if (directory + sizeof kSoname > sizeof path) return nullptr;
  std::memcpy(path, self.dli_fname, directory);
  std::memcpy(path + directory, kSoname, sizeof kSoname);
  return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

TransportLibrary load() noexcept {
  void* library = open_beside_us();
  if (library == nullptr) library = dlopen(kSoname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) return {};
  return {.list_devices = reinterpret_cast<decltype(TransportLibrary::list_devices)>(
              dlsym(library, kListDevices)),
          .open = reinterpret_cast<decltype(TransportLibrary::open)>(dlsym(library, kOpen))};
}

}  // namespace

const TransportLibrary* transport_library() noexcept {
  // What cannot be loaded is tried again: memory may have been short.
  static constinit std::mutex mutex;
  static constinit TransportLibrary library{};
  const std::lock_guard hold(mutex);
  if (library.open == nullptr) library = load();
  return library.list_devices != nullptr && library.open != nullptr ? &library : nullptr;
}

}  // namespace tbt::provider

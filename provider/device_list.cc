// The device list: what the real library lists, then ours, so that a program which takes the first
// entry keeps the adapter it had.
#include <endian.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "forward.h"
#include "objects.h"
#include "transport_library.h"

namespace tbt::provider {

constinit std::array<Device, kMaxDevices> device_table{};

namespace {

constinit std::mutex table_mutex;
constinit size_t table_size = 0;

// While the real library imports a device it lists devices through us and looks into each one's
// private part, which ours do not have.
constinit thread_local bool real_devices_only = false;

// rdma-core's reference counter lies one pointer behind the public struct (the same in releases 34
// to 65). Kept far from zero: at zero the real library would call the driver that a device of ours
// does not have.
void hold_for_ever(Device& device) noexcept {
  const int references = 1 << 30;
  std::memcpy(device.real_library_part.data() + sizeof(void*), &references, sizeof references);
}

void describe(Device& device, const DeviceInfo& info) noexcept {
  device.node_type = IBV_NODE_CA;
  device.transport_type = IBV_TRANSPORT_IB;
  const char* name = info.name.c_str();
  std::snprintf(device.name, sizeof device.name, "%s", name);
  std::snprintf(device.dev_name, sizeof device.dev_name, "%s", name);
  std::snprintf(device.dev_path, sizeof device.dev_path, "/sys/class/infiniband_verbs/%s", name);
  std::snprintf(device.ibdev_path, sizeof device.ibdev_path, "/sys/class/infiniband/%s", name);
  device.guid = info.guid;
  hold_for_ever(device);
}

// The entry for a device, the same one each time it is listed. nullptr if the table is full.
Device* find_or_add(const DeviceInfo& info) noexcept {
  const std::lock_guard lock(table_mutex);
  for (size_t i = 0; i < table_size; ++i) {
    if (info.name == device_table[i].name) return &device_table[i];
  }
  if (table_size == kMaxDevices) return nullptr;
  Device& device = device_table[table_size++];
  describe(device, info);
  return &device;
}

// Without the transport, or without a daemon, an empty list; what else keeps ours away is an error.
Result<std::vector<DeviceInfo>> list_transport_devices() noexcept {
  const std::vector<DeviceInfo> nothing;
  if (real_devices_only) return nothing;
  const TransportLibrary* transport = transport_library();
  if (transport == nullptr) return nothing;
  Result<std::vector<DeviceInfo>> list = transport->list_devices();
  const int code = list.error().code();
  if (code == ENOENT || code == ECONNREFUSED) return nothing;
  return list;  // moved: a copy would want memory
}

ibv_device** real_device_list(int* count) noexcept {
  using List = decltype(&ibv_get_device_list);
  static constinit RealFunction<List> list("ibv_get_device_list");
  *count = 0;
  if (list.get() == nullptr) return fail(ENOSYS);
  return list.get()(count);
}

void free_real_device_list(ibv_device** list) noexcept {
  using Free = decltype(&ibv_free_device_list);
  static constinit RealFunction<Free> free_list("ibv_free_device_list");
  if (free_list.get() != nullptr) free_list.get()(list);
}

// The array is plain malloc memory without a header: there are programs that free() it.
ibv_device** append(ibv_device** real, size_t real_count, const std::vector<DeviceInfo>& infos,
                    int* total) noexcept {
  auto** list = static_cast<ibv_device**>(std::calloc(real_count + infos.size() + 1, sizeof real));
  if (list == nullptr) {
    if (real != nullptr) free_real_device_list(real);
    return fail(ENOMEM);
  }
  if (real_count > 0) std::memcpy(list, real, real_count * sizeof *real);
  size_t count = real_count;
  for (const DeviceInfo& info : infos) {
    if (Device* device = find_or_add(info)) list[count++] = device;
  }
  std::free(real);  // only the array: its devices live on in ours
  *total = static_cast<int>(count);
  return list;
}

}  // namespace
}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_device** ibv_get_device_list(int* num_devices) {
  int real_count = 0;
  ibv_device** real = real_device_list(&real_count);
  const int real_errno = errno;
  const tbt::Result<std::vector<tbt::DeviceInfo>> listed = list_transport_devices();
  if (num_devices != nullptr) *num_devices = 0;
  if (real == nullptr && real_errno == ENOMEM) return fail(ENOMEM);
  // Others' devices are of use without ours, except that the whole program is out of memory.
  if (!listed && (real_count == 0 || listed.error().code() == ENOMEM)) {
    if (real != nullptr) free_real_device_list(real);
    return fail(listed.error());
  }
  static const std::vector<tbt::DeviceInfo> none;
  const std::vector<tbt::DeviceInfo>& infos = listed ? *listed : none;
  int total = real_count;
  // With nothing of ours the answer is the real library's own, its error included. "No kernel
  // support" is an error only then.
  ibv_device** list = real;
  if (infos.empty()) {
    errno = real_errno;
  } else {
    list = append(real, static_cast<size_t>(real_count), infos, &total);
  }
  if (num_devices != nullptr) *num_devices = list != nullptr ? total : 0;
  return list;
}

TBT_VERB void ibv_free_device_list(ibv_device** list) {
  size_t real_count = 0;
  size_t count = 0;
  for (; list[count] != nullptr; ++count) {
    if (!is_ours(list[count])) list[real_count++] = list[count];
  }
  if (real_count == 0 && count > 0) {
    std::free(list);
    return;
  }
  // The real library releases the devices and then the array.
  list[real_count] = nullptr;
  free_real_device_list(list);
}

TBT_VERB __be64 ibv_get_device_guid(ibv_device* device) {
  if (!is_ours(device)) TBT_FORWARD(ibv_get_device_guid, 0, device);
  return htobe64(ours(device).guid);
}

// The kernel numbers its devices from 0 upwards; ours lie far away from those.
TBT_VERB int ibv_get_device_index(ibv_device* device) {
  if (!is_ours(device)) TBT_FORWARD(ibv_get_device_index, -1, device);
  constexpr int kFirstIndex = 0x7b70000;
  return kFirstIndex + static_cast<int>(&ours(device) - device_table.data());
}

// Ours have no kernel descriptor to import by; the one in cmd_fd is an eventfd.
TBT_VERB ibv_context* ibv_import_device(int cmd_fd) {
  using Import = decltype(&ibv_import_device);
  static constinit RealFunction<Import> find("ibv_import_device");
  const auto import = find.get();
  struct stat file {};
  if (import == nullptr || fstat(cmd_fd, &file) != 0 || !S_ISCHR(file.st_mode)) {
    return fail(EOPNOTSUPP);
  }
  real_devices_only = true;
  ibv_context* context = import(cmd_fd);
  real_devices_only = false;
  return context;
}

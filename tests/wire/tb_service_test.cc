// What hosts say of themselves in their property blocks: our service word by word, those of others,
// what is missing, out of range or not fit to be printed.
#include "wire/tb/service.h"

#include <gtest/gtest.h>

#include "tb_linux_block.h"

namespace tbt::wire::tb {
namespace {

using testing::linux_tree;
using testing::Words;

PropertyDirectory through_a_block(const PropertyDirectory& tree) {
  Words block;
  PropertyDirectory out;
  EXPECT_EQ(build_property_block(tree, block), PropertyError::kNone);
  EXPECT_EQ(parse_property_block(block, out), PropertyError::kNone);
  return out;
}

TEST(Service, OursSurvivesABlock) {
  HostProperties host;
  host.device_name = "studio";
  host.max_hop_id = 23;
  const TbtService service{
      .revision = 3, .settings = kTbtSettingE2e, .max_frame = 4096, .max_rails = 2};
  PropertyDirectory root = host_directory(host);
  add_tbt_service(service, root);
  root = through_a_block(root);
  HostProperties host_out;
  ASSERT_TRUE(read_host(root, host_out));
  EXPECT_EQ(host_out, host);
  TbtService service_out;
  ASSERT_EQ(read_tbt_service(root, service_out), ServiceError::kNone);
  EXPECT_EQ(service_out, service);
}

// Words 30 and on are a directory of six entries; docs/wire.md, section 6.5.
TEST(Service, OursHasTheWordsOfTheDocument) {
  PropertyDirectory root;
  add_tbt_service({.revision = 3, .settings = 1, .max_frame = 4096, .max_rails = 2}, root);
  Words block;
  ASSERT_EQ(build_property_block(root, block), PropertyError::kNone);
  const Words wanted = {
      0x55584401, 4,                                      // one entry
      0x74627472, 0x646d6100, 0x4400001c, 7,          0,  // tbtrdma D
      0x466f900f, 0xfc463880, 0x48bda186, 0x7bdeb79b,     // the UUID
      0x70727463, 0x69640000, 0x76000001, 1,              // prtcid
      0x70727463, 0x76657273, 0x76000001, 1,              // prtcvers
      0x70727463, 0x72657673, 0x76000001, 3,              // prtcrevs
      0x70727463, 0x73746e73, 0x76000001, 1,              // prtcstns
      0x6d617866, 0x72616d65, 0x76000001, 4096,           // maxframe
      0x6d617872, 0x61696c73, 0x76000001, 2,              // maxrails
  };
  EXPECT_EQ(block, wanted);
}

TEST(Service, ListsWhatAnyHostOffers) {
  const auto services = list_services(linux_tree());
  ASSERT_EQ(services.size(), 1u);
  const ServiceInfo wanted{.key = "network",
                           .uuid = uuid("c66189ca-1cce-4195-bdb8-49592e5f5a4f"),
                           .protocol_id = 1,
                           .version = 1,
                           .revision = 1,
                           .settings = 7};
  EXPECT_EQ(services[0], wanted);
}

TEST(Service, AHostWithoutVendorOrDeviceIsRefused) {
  for (const std::string_view key : {"vendorid", "deviceid"}) {
    PropertyDirectory root = linux_tree();
    std::erase_if(root.entries, [&](const Property& p) {
      return p.key.name() == key && std::holds_alternative<uint32_t>(p.value);
    });
    HostProperties out;
    EXPECT_FALSE(read_host(root, out)) << key;
  }
}

TEST(Service, WhatAHostDoesNotSayHasItsDefault) {
  PropertyDirectory root;
  root.add("vendorid", 1u);
  root.add("deviceid", 2u);
  HostProperties out;
  ASSERT_TRUE(read_host(root, out));
  EXPECT_EQ(out.max_hop_id, 15);
  EXPECT_EQ(out.device_name, "");
}

TEST(Service, NamesComeOutPrintableAndShort) {
  PropertyDirectory root = linux_tree();
  root.entries[5].value = "\x1b[2J" + std::string(200, 'n');
  root.entries[6].value = 0xffffffffu;
  HostProperties out;
  ASSERT_TRUE(read_host(root, out));
  EXPECT_EQ(out.device_name, "?[2J" + std::string(59, 'n'));
  EXPECT_EQ(out.max_hop_id, 0x7ff);
}

TEST(Service, AnotherUuidProtocolOrVersionIsNotOurs) {
  const auto changed = [](auto change) {
    PropertyDirectory root;
    add_tbt_service({}, root);
    change(std::get<PropertyDirectory>(root.entries[0].value));
    TbtService out;
    return read_tbt_service(root, out);
  };
  const auto entry = [](size_t index, uint32_t value) {
    return [=](PropertyDirectory& dir) { dir.entries[index].value = value; };
  };
  EXPECT_EQ(changed([](PropertyDirectory& /*dir*/) {}), ServiceError::kNone);
  EXPECT_EQ(changed([](PropertyDirectory& dir) { dir.uuid = Uuid{}; }), ServiceError::kAbsent);
  EXPECT_EQ(changed(entry(0, 2)), ServiceError::kAbsent);
  EXPECT_EQ(changed(entry(1, 2)), ServiceError::kUnknownVersion);
  EXPECT_EQ(changed(entry(2, 99)), ServiceError::kNone);
  EXPECT_EQ(changed(entry(3, 0xffffffff)), ServiceError::kNone);
  EXPECT_EQ(changed(entry(4, 4097)), ServiceError::kBadField);
  EXPECT_EQ(changed(entry(4, 255)), ServiceError::kBadField);
  EXPECT_EQ(changed(entry(5, 0)), ServiceError::kBadField);
  EXPECT_EQ(changed(entry(5, 17)), ServiceError::kBadField);
  EXPECT_EQ(changed([](PropertyDirectory& dir) { dir.entries.pop_back(); }),
            ServiceError::kBadField);
  TbtService out;
  EXPECT_EQ(read_tbt_service(linux_tree(), out), ServiceError::kAbsent);
}

}  // namespace
}  // namespace tbt::wire::tb

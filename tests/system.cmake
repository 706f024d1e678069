# The conformance program: every folder of tests/cases against what the reference implementations computed.
file(GLOB conformance_sources CONFIGURE_DEPENDS conformance/*.c)
if(conformance_sources)
  add_executable(conformance ${conformance_sources})
  target_include_directories(conformance PRIVATE .)
  target_link_libraries(conformance room_pipelines)
  file(GLOB conformance_cases CONFIGURE_DEPENDS cases/*)
  add_test(NAME conformance COMMAND conformance ${conformance_cases} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endif()
